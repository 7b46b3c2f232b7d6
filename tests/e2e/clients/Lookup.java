/** InetAddress as Java has it: prints each address. */
public class Lookup {
    public static void main(String[] arguments) throws Exception {
        for (var address : java.net.InetAddress.getAllByName(arguments[0])) {
            System.out.println("address " + address.getHostAddress());
        }
    }
}

/* The floor: what any server pays that takes and sends one UDP datagram per system call. Its answer is the question. */

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, client;
    unsigned char packet[4096];
    socklen_t length;
    ssize_t size;
    int door = socket(AF_INET, SOCK_DGRAM, 0);

    if (argc != 2)
        return 2;
    here.sin_port = htons((unsigned short)atoi(argv[1]));
    if (door < 0 || bind(door, (struct sockaddr *)&here, sizeof here) < 0)
        return 1;
    for (;;) {
        length = sizeof client;
        size = recvfrom(door, packet, sizeof packet, 0, (struct sockaddr *)&client, &length);
        if (size < 12)
            continue;
        packet[2] |= 0x80;
        sendto(door, packet, (size_t)size, 0, (struct sockaddr *)&client, length);
    }
}

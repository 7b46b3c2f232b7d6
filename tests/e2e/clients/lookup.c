/* getaddrinfo as a C library has it: prints the canonical name, then each address. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_CANONNAME}, *found;
    int error = getaddrinfo(argv[argc - 1], NULL, &hints, &found);
    if (error) return fprintf(stderr, "%s\n", gai_strerror(error)), 1;
    printf("canonical %s\n", found->ai_canonname);
    for (; found; found = found->ai_next) {
        char text[64];
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
        printf("address %s\n", text);
    }
}

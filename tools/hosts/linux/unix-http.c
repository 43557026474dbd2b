// Makes one HTTP request at a UNIX socket, as curl --unix-socket does, for a host that has no curl.
//
//   unix-http SOCKET METHOD PATH [JSON]
//
// The body of the answer goes to standard output. Exit status: 0 where the answer's status is 2xx, 1 where it is another, which
// is said on standard error, 2 where there is no answer within five minutes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_SECONDS 300
#define ANSWER_MAX (1 << 20)

static int fail(const char *what) {
    perror(what);
    return 2;
}

int main(int count, char **words) {
    if (count != 4 && count != 5) {
        fprintf(stderr, "usage: unix-http SOCKET METHOD PATH [JSON]\n");
        return 2;
    }
    const char *body = count == 5 ? words[4] : "";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(words[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "unix-http: the path of the socket is too long\n");
        return 2;
    }
    strcpy(address.sun_path, words[1]);
    int to = socket(AF_UNIX, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    if (to < 0 || setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
        connect(to, (struct sockaddr *)&address, sizeof address))
        return fail(words[1]);
    const char *type = count == 5 ? "Content-Type: application/json\r\n" : "";
    if (dprintf(to, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n%s", words[2], words[3],
                type, strlen(body), body) < 0)
        return fail("the request");
    static char answer[ANSWER_MAX + 1];
    size_t length = 0;
    ssize_t got;
    while (length < ANSWER_MAX && (got = read(to, answer + length, ANSWER_MAX - length)) != 0) {
        if (got < 0)
            return fail("the answer");
        length += (size_t)got;
    }
    char *end = strstr(answer, "\r\n\r\n");
    int status = 0;
    if (end == NULL || sscanf(answer, "HTTP/1.1 %d", &status) != 1) {
        fprintf(stderr, "unix-http: this is no answer\n");
        return 2;
    }
    end += 4;
    fwrite(end, 1, length - (size_t)(end - answer), stdout);
    printf("\n");
    if (status / 100 != 2)
        fprintf(stderr, "%d\n", status);
    return status / 100 == 2 ? 0 : 1;
}

// The floor: one thread, epoll, and a loop of send over the subscribers. It keeps nothing but a descriptor for each of
// them, and does no more than the load generator needs: SUB of one topic, PUB, PING; with `echo` it sends back what
// comes. A socket that is full loses the message, and of one connection at a time a line that comes in pieces is put
// together: it is a floor, not a server.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 20000, EVENTS = 1024, READ_BYTES = 64 * 1024 };

static int subscribers[DESCRIPTORS_MAX];
static int subscribed;
// Where a descriptor stands among the subscribers, plus one.
static int place[DESCRIPTORS_MAX];

// The beginning of a line, and whose it is.
static char tail[READ_BYTES];
static size_t tail_bytes;
static int tail_of = -1;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void say(int fd, const char *text, size_t length) {
    // What a full socket does not take is lost, and the client counts it.
    (void)!send(fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void subscribe(int fd) {
    if (place[fd] == 0) {
        subscribers[subscribed++] = fd;
        place[fd] = subscribed;
    }
    say(fd, "OK SUB t\n", 9);
}

static void leave(int fd) {
    if (place[fd] != 0) {
        int last = subscribers[--subscribed];
        subscribers[place[fd] - 1] = last;
        place[last] = place[fd];
        place[fd] = 0;
    }
    if (tail_of == fd) tail_of = -1;
    close(fd);
}

static void publish(int fd, const char *line, size_t length) {
    static char message[READ_BYTES];
    memcpy(message, "MSG ", 4);
    memcpy(message + 4, line + 4, length - 4);
    for (int i = 0; i < subscribed; i++) say(subscribers[i], message, length);
    say(fd, "OK PUB 1\n", 9);
}

static void serve(int fd, char *bytes, size_t count) {
    char *line = bytes;
    for (char *end; (end = memchr(line, '\n', bytes + count - line)) != NULL; line = end + 1) {
        size_t length = end + 1 - line;
        if (length > 4 && memcmp(line, "SUB ", 4) == 0) subscribe(fd);
        else if (length > 4 && memcmp(line, "PUB ", 4) == 0) publish(fd, line, length);
        else if (length >= 5 && memcmp(line, "PING", 4) == 0) say(fd, "PONG\n", 5);
        else say(fd, "ERR unknown-verb\n", 17);
    }
    if (line < bytes + count) {
        tail_of = fd;
        tail_bytes = bytes + count - line;
        memcpy(tail, line, tail_bytes);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(fd, SOMAXCONN) < 0) fail("listen");
    return fd;
}

static void watch(int ring, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(ring, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void accept_all(int ring, int listener) {
    for (int fd, on = 1; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= DESCRIPTORS_MAX) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(ring, fd);
    }
}

int main(int count, char **words) {
    static char buffer[READ_BYTES];
    static struct epoll_event events[EVENTS];
    if (count < 2) {
        fprintf(stderr, "usage: bare PORT [echo]\n");
        return 2;
    }
    int is_echo = count > 2 && strcmp(words[2], "echo") == 0;
    int listener = listen_on(atoi(words[1])), ring = epoll_create1(EPOLL_CLOEXEC);
    if (ring < 0) fail("epoll_create1");
    watch(ring, listener);
    for (;;) {
        int ready = epoll_wait(ring, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(ring, listener);
                continue;
            }
            size_t held = fd == tail_of ? tail_bytes : 0;
            memcpy(buffer, tail, held);
            ssize_t got = recv(fd, buffer + held, sizeof buffer - held, 0);
            if (held > 0 && got > 0) tail_of = -1;
            if (got > 0 && is_echo) say(fd, buffer, got);
            else if (got > 0) serve(fd, buffer, held + got);
            else if (got == 0 || (errno != EAGAIN && errno != EINTR)) leave(fd);
        }
    }
}

/* Requests at a constant rate, each counted from the moment it should have been sent.
 *
 *     pace PORT COUNT INTERVAL_NS CONNECTIONS LENGTH REQUEST_FILE RECORDS_FILE
 *
 * Sends the bytes of REQUEST_FILE to 127.0.0.1:PORT, COUNT times, one every INTERVAL_NS (0: as fast as they
 * are answered), over CONNECTIONS kept-alive connections. A request that is due goes to a free connection,
 * the one that has rested longest; where none is free it waits, and the waiting is its server's doing.
 * RECORDS_FILE gets four int64 for each request, in the order in which they were due:
 *
 *     due, sent, done     CLOCK_MONOTONIC, ns
 *     waited              1 if no connection was free when it was due
 *
 * Every answer must be a 200 with a Content-Length of LENGTH and so many bytes. The first that is not, a
 * connection that ends, and silence of GRACE_NS end everything: one line on stderr says why, and the status
 * is 1. It sleeps until something is due or comes in, and asks the kernel for exact timers: where it comes
 * late all the same, `sent` tells. At no priority of its own: before a server on the same core it would cost
 * that a switch for each answer, and from 24,000 a second on measure nothing else.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#ifndef GRACE_NS
#define GRACE_NS (10 * SECOND)
#endif
#define BEGIN_NS (20 * 1000000LL) /* from the last connection to the first request */
#define HEAD_MOST 16384
#define EVENTS 256

struct record {
    int64_t due, sent, done, waited;
};

struct connection {
    int fd;
    int64_t request;   /* its number, -1 where it rests */
    int64_t body_left; /* -1 while the head is being read */
    size_t head_length;
    char head[HEAD_MOST + 1];
};

static struct record *records;
static struct connection *connections;
static int *resting; /* a ring of numbers of connections */
static int64_t connection_count, rest_first, rest_count, length, done_count;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("pace: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void *zeroed(size_t count, size_t size) {
    void *made = calloc(count, size);
    if (!made) fail("out of memory");
    memset(made, 0, count * size); /* touched now rather than at the moment that is measured */
    return made;
}

static char *read_all(const char *path, size_t *size) {
    static char text[HEAD_MOST];
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot read `%s`: %s", path, strerror(errno));
    *size = fread(text, 1, sizeof text, file);
    fclose(file);
    return text;
}

static int connected(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) fail("cannot connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

static void rest(int64_t which) {
    connections[which].request = -1;
    resting[(rest_first + rest_count++) % connection_count] = (int)which;
}

static void answered(int64_t which, int64_t at) {
    records[connections[which].request].done = at;
    done_count++;
    rest(which);
}

/* The head is complete and ends before `body`: what it says, or the end. */
static void check_head(struct connection *one, char *body) {
    char *line = one->head;
    int64_t found = -1;
    *(body - 2) = 0; /* the empty line's: what is left is whole lines */
    if (strncmp(line, "HTTP/1.1 200 ", 13)) fail("answered: %.*s", (int)strcspn(line, "\r\n"), line);
    while ((line = strstr(line, "\r\n"))) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) found = atoll(line + 15);
    }
    if (found != length) fail("answered with a length of %lld instead of %lld", (long long)found, (long long)length);
    one->body_left = length;
}

static void receive(int64_t which) {
    static char body[65536];
    struct connection *one = &connections[which];
    for (;;) {
        int in_head = one->body_left < 0;
        char *into = in_head ? one->head + one->head_length : body;
        size_t room = in_head ? HEAD_MOST - one->head_length : sizeof body;
        ssize_t got = recv(one->fd, into, room, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got < 0) fail("a connection failed: %s", strerror(errno));
        if (got == 0) fail("a connection was closed%s", one->request < 0 ? "" : " before its answer");
        if (one->request < 0) fail("answered without being asked");
        if (in_head) {
            char *end;
            one->head_length += (size_t)got;
            one->head[one->head_length] = 0;
            end = strstr(one->head, "\r\n\r\n");
            if (!end && one->head_length == HEAD_MOST) fail("answered with an endless head");
            if (!end) continue;
            end += 4;
            got = one->head + one->head_length - end;
            check_head(one, end);
        }
        if (got > one->body_left) fail("answered with more than its length");
        one->body_left -= got;
        if (one->body_left == 0) {
            one->body_left = -1;
            one->head_length = 0;
            answered(which, now());
            return; /* one request at a time: there is no more to come */
        }
        if ((size_t)got < room && !in_head) return; /* that was all there is now */
    }
}

int main(int argc, char **argv) {
    if (argc != 8) fail("PORT COUNT INTERVAL_NS CONNECTIONS LENGTH REQUEST_FILE RECORDS_FILE");
    int port = atoi(argv[1]), poll = epoll_create1(EPOLL_CLOEXEC);
    int64_t count = atoll(argv[2]), interval = atoll(argv[3]), sent_count = 0, starved = 0;
    size_t size;
    char *request = read_all(argv[6], &size);
    connection_count = atoll(argv[4]);
    length = atoll(argv[5]);
    if (count < 1 || interval < 0 || connection_count < 1 || length < 0) fail("a number is out of range");
    records = zeroed((size_t)count, sizeof *records);
    connections = zeroed((size_t)connection_count, sizeof *connections);
    resting = zeroed((size_t)connection_count, sizeof *resting);
    prctl(PR_SET_TIMERSLACK, 1UL);
    for (int64_t i = 0; i < connection_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        connections[i].fd = connected(port);
        connections[i].body_left = -1;
        if (epoll_ctl(poll, EPOLL_CTL_ADD, connections[i].fd, &event)) fail("epoll: %s", strerror(errno));
        rest(i);
    }
    int64_t begin = now() + BEGIN_NS, last = begin; /* something was sent or received */
    for (int64_t i = 0; i < count; i++) records[i].due = begin + i * interval;

    while (done_count < count) {
        struct epoll_event events[EVENTS];
        int may_send = sent_count < count && rest_count > 0;
        int64_t until = may_send ? records[sent_count].due : last + GRACE_NS, at = now();
        int64_t wait = until > at ? until - at : 0;
        struct timespec timeout = {wait / SECOND, wait % SECOND};
        int ready = epoll_pwait2(poll, events, EVENTS, &timeout, NULL);
        if (ready < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
        at = now();
        /* What became due while no connection was free has waited for one, not for us. */
        if (!rest_count)
            while (starved < count && records[starved].due <= at) starved++;
        for (int i = 0; i < ready; i++) receive((int64_t)events[i].data.u64);
        if (ready > 0) last = at;
        else if (!may_send && at >= until)
            fail("%lld requests are without an answer", (long long)(sent_count - done_count));
        at = now();
        while (sent_count < count && records[sent_count].due <= at) {
            if (!rest_count) {
                while (starved < count && records[starved].due <= at) starved++;
                break;
            }
            int which = resting[rest_first];
            rest_first = (rest_first + 1) % connection_count;
            rest_count--;
            if (send(connections[which].fd, request, size, MSG_NOSIGNAL) != (ssize_t)size)
                fail("a request could not be sent: %s", strerror(errno));
            connections[which].request = sent_count;
            at = now();
            records[sent_count].sent = last = at;
            records[sent_count].waited = sent_count < starved;
            sent_count++;
        }
    }
    FILE *file = fopen(argv[7], "wb");
    if (!file || fwrite(records, sizeof *records, (size_t)count, file) != (size_t)count || fclose(file))
        fail("cannot write `%s`: %s", argv[7], strerror(errno));
    return 0;
}

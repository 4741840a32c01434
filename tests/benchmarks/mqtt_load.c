/* Load generator of tests/benchmarks/edge.py: one thread, epoll, OpenSSL, pre-encoded packets, 64-byte payloads.
 *
 * Every packet is one TLS record, as clients do; many records share one send. Modes:
 *   pairs   N publishers, each with a subscriber of its own, at most WINDOW messages of a pair under way
 *   fanout  one publisher, N subscribers of one topic
 *   rate    N pairs, RATE messages a second in all; prints latency percentiles
 *   connect N at once: TCP, TLS, CONNECT, CONNACK, DISCONNECT, close, again
 *   idle    N connections with one subscription each, held until stdin closes; RATE is their keep-alive in seconds,
 *           and each sends a PINGREQ twice in that time
 * Prints "READY" when everything is connected, "BEGIN" and "END" around the measured seconds, then one JSON line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The part of OpenSSL's interface that is used, so that only its library is needed and not its development package.
 * The numbers of the controls have been the same since OpenSSL 1.1. */
typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_method_st SSL_METHOD;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;
extern const SSL_METHOD *TLS_client_method(void);
extern SSL_CTX *SSL_CTX_new(const SSL_METHOD *);
extern long SSL_CTX_ctrl(SSL_CTX *, int, long, void *);
extern SSL *SSL_new(SSL_CTX *);
extern void SSL_free(SSL *);
extern long SSL_ctrl(SSL *, int, long, void *);
extern void SSL_set_bio(SSL *, BIO *, BIO *);
extern void SSL_set_connect_state(SSL *);
extern int SSL_do_handshake(SSL *);
extern int SSL_read(SSL *, void *, int);
extern int SSL_write(SSL *, const void *, int);
extern int SSL_get_error(const SSL *, int);
extern BIO *BIO_new(const BIO_METHOD *);
extern BIO *BIO_new_socket(int, int);
extern const BIO_METHOD *BIO_s_mem(void);
extern int BIO_read(BIO *, void *, int);
extern long BIO_ctrl(BIO *, int, long, void *);
#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_CTX_require_tls12(ctx) SSL_CTX_ctrl(ctx, 123, 0x0303, NULL)
#define SSL_CTX_release_buffers(ctx) SSL_CTX_ctrl(ctx, 33, 0x10, NULL)
#define SSL_CTX_no_session_cache(ctx) SSL_CTX_ctrl(ctx, 44, 0, NULL)
#define SSL_set_tlsext_host_name(ssl, name) SSL_ctrl(ssl, 55, 0, (void *)(name))
#define BIO_NOCLOSE 0
#define BIO_reset(bio) BIO_ctrl(bio, 1, 0, NULL)
#define BIO_get_mem_data(bio, data) BIO_ctrl(bio, 3, 0, data)
#define BIO_pending(bio) BIO_ctrl(bio, 10, 0, NULL)

#define PAYLOAD 64
#define RBUF 65536
enum { NEW, SHAKING, CONNECTING, SUBSCRIBING, READY };

typedef struct conn {
    int fd, state, subscriber, index, want_out;
    SSL *ssl;
    BIO *out;
    struct conn *peer;
    unsigned char *rbuf;
    size_t rlen;
    long sent, acked, delivered;
    unsigned packet_id;
} conn;

static int port, count, window, qos, version, seconds, ready, vary;
static double rate;
static const char *mode, *username, *password;
static SSL_CTX *ctx;
static int ep;
static conn *conns;
static int nconns, measuring, running = 1;
static long total, failures, pings, pongs;
static uint32_t *latencies;
static long nlat, maxlat;
static struct sockaddr_in addr;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "mqtt_load: %s (%s)\n", what, strerror(errno));
    exit(1);
}

static void flush(conn *c) {
    char *data;
    long n = BIO_get_mem_data(c->out, &data);
    if (n > 0) {
        ssize_t w = send(c->fd, data, n, MSG_NOSIGNAL);
        if (w < 0) {
            if (errno != EAGAIN) return;
            w = 0;
        }
        if (w == n) {
            (void)BIO_reset(c->out);
        } else {
            char skip[16384];
            while (w > 0) {
                int part = w > (ssize_t)sizeof skip ? (int)sizeof skip : (int)w;
                BIO_read(c->out, skip, part);
                w -= part;
            }
        }
        n = BIO_pending(c->out);
    }
    int want = n > 0;
    if (want != c->want_out) {
        struct epoll_event e = {.events = EPOLLIN | (want ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
        c->want_out = want;
    }
}

static void put(conn *c, const unsigned char *data, int n) {
    if (SSL_write(c->ssl, data, n) != n) die("SSL_write");
}

static int str(unsigned char *p, const char *s) {
    int n = strlen(s);
    p[0] = n >> 8;
    p[1] = n;
    memcpy(p + 2, s, n);
    return n + 2;
}

static int varint(unsigned char *p, int n) {
    int i = 0;
    do {
        p[i] = n & 127;
        n >>= 7;
        if (n) p[i] |= 128;
        i++;
    } while (n);
    return i;
}

static void frame(conn *c, int first, const unsigned char *body, int n) {
    unsigned char b[2048];
    b[0] = first;
    int h = 1 + varint(b + 1, n);
    memcpy(b + h, body, n);
    put(c, b, h + n);
}

static void topic_of(conn *c, char *t) {
    if (!strcmp(mode, "fanout")) strcpy(t, "bench/fan");
    else sprintf(t, "bench/%d/value", c->subscriber ? c->index : c->peer ? c->peer->index : c->index);
}

static void send_connect(conn *c) {
    unsigned char b[1024];
    char id[64];
    int n = str(b, "MQTT");
    b[n++] = version;
    b[n++] = 0xC2;
    int keep_alive = strcmp(mode, "idle") ? 0 : (int)rate;
    b[n++] = keep_alive >> 8;
    b[n++] = keep_alive;
    if (version == 5) b[n++] = 0;
    sprintf(id, "%s%d-%d", c->subscriber ? "s" : "p", c->index, getpid());
    n += str(b + n, id);
    n += str(b + n, username);
    n += str(b + n, password);
    frame(c, 0x10, b, n);
}

static void send_subscribe(conn *c) {
    unsigned char b[256];
    char t[64];
    int n = 0;
    b[n++] = 0;
    b[n++] = 1;
    if (version == 5) b[n++] = 0;
    topic_of(c, t);
    n += str(b + n, t);
    b[n++] = qos;
    frame(c, 0x82, b, n);
}

static void publish(conn *c) {
    unsigned char b[2048];
    char t[64];
    topic_of(c, t);
    int n = str(b, t), size = PAYLOAD;
    if (qos) {
        c->packet_id = c->packet_id % 65000 + 1;
        b[n++] = c->packet_id >> 8;
        b[n++] = c->packet_id;
    }
    if (version == 5) b[n++] = 0;
    if (vary) size = 16 + (c->sent * 37) % 1000;
    uint64_t at = now_ns();
    memcpy(b + n, &at, 8);
    memset(b + n + 8, 'x', size - 8);
    frame(c, 0x30 | qos << 1, b, n + size);
    c->sent++;
}

static void refill(conn *p) {
    if (!running || p->state != READY) return;
    long done;
    if (!strcmp(mode, "fanout")) done = p->delivered / count;
    else done = p->peer->delivered;
    if (qos && p->acked < done) done = p->acked;
    int any = 0;
    while (p->sent - done < window) {
        publish(p);
        any = 1;
    }
    if (any) flush(p);
}

static void close_conn(conn *c) {
    if (c->fd >= 0) {
        epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
        close(c->fd);
        SSL_free(c->ssl);
    }
    c->fd = -1;
    c->state = NEW;
    c->rlen = 0;
}

static void open_conn(conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&addr, sizeof addr) < 0 && errno != EINPROGRESS) die("connect");
    c->ssl = SSL_new(ctx);
    c->out = BIO_new(BIO_s_mem());
    SSL_set_bio(c->ssl, BIO_new_socket(c->fd, BIO_NOCLOSE), c->out);
    SSL_set_connect_state(c->ssl);
    SSL_set_tlsext_host_name(c->ssl, "localhost");
    c->state = SHAKING;
    c->want_out = 1;
    c->rlen = 0;
    if (!c->rbuf) c->rbuf = malloc(strcmp(mode, "idle") && strcmp(mode, "connect") ? RBUF : 4096);
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) < 0) die("epoll");
}

static void became_ready(conn *c) {
    c->state = READY;
    ready++;
}

static void packet(conn *c, unsigned char first, unsigned char *b, int n) {
    switch (first & 0xF0) {
    case 0x20:
        if (b[1]) {
            fprintf(stderr, "CONNACK %d\n", b[1]);
            exit(1);
        }
        if (!strcmp(mode, "connect")) {
            unsigned char bye[2] = {0xE0, 0};
            put(c, bye, 2);
            flush(c);
            if (measuring) total++;
            close_conn(c);
            if (running) open_conn(c);
            return;
        }
        if (c->subscriber) {
            c->state = SUBSCRIBING;
            send_subscribe(c);
            flush(c);
        } else became_ready(c);
        break;
    case 0x90:
        if (b[n - 1] > 2) die("SUBACK refused");
        became_ready(c);
        break;
    case 0x30: {
        int t = 2 + (b[0] << 8 | b[1]);
        if (memcmp(b + 2, "bench/", 6)) die("a topic shows a prefix");
        if (first & 6) {
            unsigned char a[2] = {b[t], b[t + 1]};
            t += 2;
            frame(c, 0x40, a, 2);
        }
        if (version == 5) t++;
        if (measuring) {
            total++;
            if (latencies && nlat < maxlat) {
                uint64_t at;
                memcpy(&at, b + t, 8);
                latencies[nlat++] = (uint32_t)(now_ns() - at);
            }
        }
        c->delivered++;
        if (!strcmp(mode, "fanout")) c->peer->delivered++;
        break;
    }
    case 0xD0:
        pongs++;
        break;
    case 0x40:
        if (n > 2 && b[2] >= 0x80) die("PUBACK refused");
        c->acked++;
        break;
    }
}

static void readable(conn *c) {
    for (;;) {
        int cap = strcmp(mode, "idle") && strcmp(mode, "connect") ? RBUF : 4096;
        int n = SSL_read(c->ssl, c->rbuf + c->rlen, cap - c->rlen);
        if (n <= 0) {
            int e = SSL_get_error(c->ssl, n);
            if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) break;
            failures++;
            if (strcmp(mode, "connect")) {
                fprintf(stderr, "mqtt_load: a connection was lost (%s %d)\n", c->subscriber ? "sub" : "pub", c->index);
                exit(1);
            }
            close_conn(c);
            if (running) open_conn(c);
            return;
        }
        c->rlen += n;
        size_t p = 0;
        while (c->rlen - p >= 2) {
            int len = 0, shift = 0, h = 1, ok = 0;
            while (p + h < c->rlen && h < 5) {
                unsigned char d = c->rbuf[p + h++];
                len |= (d & 127) << shift;
                shift += 7;
                if (d < 128) {
                    ok = 1;
                    break;
                }
            }
            if (!ok || c->rlen - p < (size_t)(h + len)) break;
            int fd = c->fd;
            packet(c, c->rbuf[p], c->rbuf + p + h, len);
            if (c->fd != fd || c->state == SHAKING || c->state == NEW) return;
            p += h + len;
        }
        memmove(c->rbuf, c->rbuf + p, c->rlen - p);
        c->rlen -= p;
    }
    if (c->state == READY) {
        flush(c);
        if (running && (!strcmp(mode, "pairs") || !strcmp(mode, "fanout")) && measuring >= 0) {
            refill(c->subscriber ? c->peer : c);
        }
    }
}

static void step(conn *c, unsigned events) {
    if (c->state == SHAKING) {
        int r = SSL_do_handshake(c->ssl);
        flush(c);
        if (r == 1) {
            c->state = CONNECTING;
            send_connect(c);
            flush(c);
        } else {
            int e = SSL_get_error(c->ssl, r);
            if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
                failures++;
                if (strcmp(mode, "connect")) die("handshake");
                close_conn(c);
                if (running) open_conn(c);
                return;
            }
            if (e == SSL_ERROR_WANT_READ && !BIO_pending(c->out) && c->want_out) {
                struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
                c->want_out = 0;
            }
            return;
        }
    }
    if (events & EPOLLOUT) flush(c);
    readable(c);
}

static void poll_once(int64_t timeout_ns) {
    struct epoll_event events[256];
    struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    int n = epoll_pwait2(ep, events, 256, &t, NULL);
    for (int i = 0; i < n; i++) {
        conn *c = events[i].data.ptr;
        if (c->fd >= 0) step(c, events[i].events);
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void drive(double duration) {
    uint64_t start = now_ns(), end = start + (uint64_t)(duration * 1e9), next = start;
    static int turn;
    while (now_ns() < end) {
        if (strcmp(mode, "rate")) {
            poll_once(20000000);
            continue;
        }
        uint64_t t = now_ns();
        while (next <= t) {
            conn *p = &conns[2 * (turn++ % count)];
            publish(p);
            flush(p);
            next += (uint64_t)(1e9 / rate);
        }
        poll_once(next > now_ns() ? next - now_ns() : 0);
    }
}

int main(int argc, char **argv) {
    if (argc < 11) {
        fprintf(stderr, "usage: mqtt_load MODE PORT COUNT WINDOW QOS VERSION SECONDS RATE USERNAME PASSWORD [vary]\n");
        return 2;
    }
    mode = argv[1];
    port = atoi(argv[2]);
    count = atoi(argv[3]);
    window = atoi(argv[4]);
    qos = atoi(argv[5]);
    version = atoi(argv[6]);
    seconds = atoi(argv[7]);
    rate = atof(argv[8]);
    username = argv[9];
    password = argv[10];
    vary = argc > 11;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    addr.sin_family = AF_INET;
    addr.sin_port = htons(port);
    inet_pton(AF_INET, "127.0.0.1", &addr.sin_addr);
    ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_require_tls12(ctx);
    SSL_CTX_release_buffers(ctx);
    SSL_CTX_no_session_cache(ctx);
    ep = epoll_create1(0);
    int idle = !strcmp(mode, "idle"), connecting = !strcmp(mode, "connect"), fan = !strcmp(mode, "fanout");
    nconns = idle || connecting ? count : fan ? count + 1 : 2 * count;
    conns = calloc(nconns, sizeof(conn));
    for (int i = 0; i < nconns; i++) {
        conn *c = &conns[i];
        c->fd = -1;
        c->index = i;
        if (idle) c->subscriber = 1;
        else if (fan) {
            c->subscriber = i > 0;
            c->peer = &conns[0];
        } else if (!connecting) {
            c->subscriber = i & 1;
            c->peer = &conns[i ^ 1];
        }
    }
    measuring = -1;
    if (connecting) {
        measuring = 0;
        for (int i = 0; i < nconns; i++) open_conn(&conns[i]);
    } else {
        for (int i = 0; i < nconns; i++) {
            open_conn(&conns[i]);
            while (i + 1 - ready > 32) poll_once(20000000);
        }
        while (ready < nconns) poll_once(20000000);
        measuring = 0;
    }
    printf("READY\n");
    fflush(stdout);
    if (idle) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
        fcntl(0, F_SETFL, O_NONBLOCK);
        epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e);
        const unsigned char ping[2] = {0xC0, 0};
        uint64_t next = now_ns(), gap = rate > 0 ? (uint64_t)(rate * 5e8 / count) : 0;
        for (int turn = 0;;) {
            struct epoll_event events[256];
            int n = epoll_wait(ep, events, 256, gap ? 10 : 1000);
            for (int i = 0; i < n; i++) {
                if (!events[i].data.ptr) {
                    char b[16];
                    if (read(0, b, sizeof b) <= 0) {
                        printf("{\"pings\": %ld, \"pongs\": %ld}\n", pings, pongs);
                        return 0;
                    }
                } else step(events[i].data.ptr, events[i].events);
            }
            for (; gap && next <= now_ns(); next += gap, pings++) {
                conn *c = &conns[turn++ % count];
                put(c, ping, 2);
                flush(c);
            }
        }
    }
    if (!strcmp(mode, "rate")) {
        maxlat = (long)(rate * (seconds + 1));
        latencies = malloc(maxlat * sizeof *latencies);
    }
    if (!strcmp(mode, "pairs"))
        for (int i = 0; i < nconns; i += 2) refill(&conns[i]);
    if (fan) refill(&conns[0]);
    drive(0.5);
    printf("BEGIN\n");
    fflush(stdout);
    measuring = 1;
    double c0 = cpu();
    uint64_t t0 = now_ns();
    drive(seconds);
    double took = (now_ns() - t0) / 1e9, used = cpu() - c0;
    measuring = 0;
    printf("END\n");
    fflush(stdout);
    running = 0;
    uint32_t p50 = 0, p99 = 0;
    if (latencies && nlat) {
        qsort(latencies, nlat, sizeof *latencies, compare);
        p50 = latencies[nlat / 2];
        p99 = latencies[nlat * 99 / 100];
    }
    printf("{\"count\": %ld, \"seconds\": %.4f, \"cpu\": %.4f, \"failures\": %ld, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           total, took, used, failures, p50 / 1e3, p99 / 1e3);
    return 0;
}

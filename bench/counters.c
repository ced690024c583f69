/* Counts what a Python process asks of its allocators: loaded into it by `bench.footprint`, not linked.
 *
 * It puts a counter before each of the three domains (raw, mem, object). A block that one allocator
 * asks of another is the first one's: it counts once. Blocks that never reach an allocator do not count,
 * which are those of CPython's free lists, and what C libraries take of malloc(3) themselves.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *block, size_t size);
    void (*free)(void *ctx, void *block);
} Allocator; /* PyMemAllocatorEx, since Python 3.5 */

extern void PyMem_GetAllocator(int domain, Allocator *into);
extern void PyMem_SetAllocator(int domain, Allocator *from);

enum { DOMAINS = 3 };
static Allocator before[DOMAINS];
static int64_t *blocks, *bytes;
static __thread int inside;

static void count(size_t size) {
    if (inside) return;
    __atomic_fetch_add(blocks, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(bytes, (int64_t)size, __ATOMIC_RELAXED);
}

static void *counted_malloc(void *ctx, size_t size) {
    Allocator *to = ctx;
    count(size);
    inside++;
    void *block = to->malloc(to->ctx, size);
    inside--;
    return block;
}

static void *counted_calloc(void *ctx, size_t each, size_t size) {
    Allocator *to = ctx;
    count(each * size);
    inside++;
    void *block = to->calloc(to->ctx, each, size);
    inside--;
    return block;
}

static void *counted_realloc(void *ctx, void *block, size_t size) {
    Allocator *to = ctx;
    count(size);
    inside++;
    block = to->realloc(to->ctx, block, size);
    inside--;
    return block;
}

static void passed_free(void *ctx, void *block) {
    Allocator *to = ctx;
    to->free(to->ctx, block);
}

/* Into the file of that many numbers, made if need be; NULL if that cannot be. It stays in memory until the
 * process is gone: an interpreter asks for memory to its very end. */
int64_t *count_into(const char *path, size_t numbers) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int64_t *counters = MAP_FAILED;
    if (file >= 0 && !ftruncate(file, (off_t)(numbers * sizeof *counters)))
        counters = mmap(NULL, numbers * sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (counters == MAP_FAILED) return NULL;
    blocks = counters;
    bytes = counters + 1;
    for (int domain = 0; domain < DOMAINS; domain++) {
        PyMem_GetAllocator(domain, &before[domain]);
        Allocator counting = {&before[domain], counted_malloc, counted_calloc, counted_realloc, passed_free};
        PyMem_SetAllocator(domain, &counting);
    }
    return counters;
}

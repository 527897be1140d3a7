/* Preloaded between a program and the C library: counts the calls that change files below one folder, ends the process at
 * the k-th of them, makes the k-th fail or write short, makes locks fail, or keeps a journal of all of them.
 *
 * Nothing happens before `torture_arm`. What goes through `mmap` is not seen: SQLite's -shm file alone is written that way,
 * and nothing durable stands in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, COUNT, EXIT, FAIL, FAIL_ON, SHORT, LOCKS };
enum { WRITE = 1, SYNC, RENAME, UNLINK, TRUNCATE, CREATE, MARK, MAKE_FOLDER, REMOVE_FOLDER };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char below[4096];
static int mode = NOTHING, failure = 0, journal = -1, hit_kind = 0;
static long counted = 0, chosen = 0, hits = 0;
static char hit_path[4096];

void torture_arm(const char *folder, int new_mode, long k, int error, int journal_file) {
  pthread_mutex_lock(&guard);
  strncpy(below, folder, sizeof below - 1);
  mode = new_mode, chosen = k, failure = error, journal = journal_file;
  counted = hits = hit_kind = 0, hit_path[0] = 0;
  pthread_mutex_unlock(&guard);
}
long torture_counted(void) { return counted; }
long torture_hits(void) { return hits; }
int torture_hit_kind(void) { return hit_kind; }
const char *torture_hit_path(void) { return hit_path; }

static int is_below(const char *path) {
  size_t length = strlen(below);
  return length && !strncmp(path, below, length) && (path[length] == '/' || !path[length]) && !strstr(path, "-shm");
}

static int path_of(int file, char *path) {
  char link[64];
  int n = 0, digits[12], number = file;
  strcpy(link, "/proc/self/fd/");
  if (file < 0) return 0;
  do digits[n++] = number % 10; while (number /= 10);
  char *end = link + strlen(link);
  while (n) *end++ = '0' + digits[--n];
  *end = 0;
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, 4095);
  if (length <= 0) return 0;
  path[length] = 0;
  return 1;
}

static void absolute(int folder, const char *name, char *path) {
  if (name[0] == '/') { strncpy(path, name, 4095); path[4095] = 0; return; }
  if (folder == AT_FDCWD) { if (!getcwd(path, 4095)) path[0] = 0; }
  else if (!path_of(folder, path)) path[0] = 0;
  strncat(path, "/", 4095 - strlen(path));
  strncat(path, name, 4095 - strlen(path));
}

static void put(const void *data, size_t length) {
  while (length) {
    ssize_t n = syscall(SYS_write, journal, data, length);
    if (n <= 0) _exit(97);
    data = (const char *)data + n, length -= n;
  }
}

static void record(int kind, const char *path, const char *other, uint64_t offset, const void *data, size_t length) {
  if (journal < 0) return;
  uint64_t head[5] = {kind, strlen(path), strlen(other), offset, data ? length : 0};
  pthread_mutex_lock(&guard);
  put(head, sizeof head), put(path, head[1]), put(other, head[2]);
  if (data) put(data, length);
  pthread_mutex_unlock(&guard);
}

void torture_mark(long number) { record(MARK, "", "", number, NULL, 0); }

/* 0: go on; 1: fail with errno set; 2: write less than was asked for. */
static int fate(int kind, const char *path) {
  int result = 0;
  if (mode == NOTHING || mode == LOCKS) return 0;
  pthread_mutex_lock(&guard);
  long number = ++counted;
  if (mode == EXIT && number == chosen) syscall(SYS_exit_group, 99);
  int now = (mode == FAIL && number == chosen) || (mode == FAIL_ON && number >= chosen) ||
            (mode == SHORT && number >= chosen && !hits && kind == WRITE);
  /* A full disk refuses what needs room; it lets files be removed. */
  if (now && mode == FAIL_ON && kind == UNLINK) now = 0;
  if (now) {
    if (!hits++) hit_kind = kind, strncpy(hit_path, path, sizeof hit_path - 1);
    result = mode == SHORT ? 2 : 1;
    errno = failure;
  }
  pthread_mutex_unlock(&guard);
  return result;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t written(int file, const void *data, size_t length, int64_t at, ssize_t n, const char *path) {
  if (n > 0 && journal >= 0) {
    int64_t offset = at;
    if (at < 0) offset = (int64_t)lseek(file, 0, SEEK_CUR) - n;
    record(WRITE, path, "", (uint64_t)offset, data, n);
  }
  (void)length;
  return n;
}

#define BEFORE_WRITE                                                             \
  char path[4096];                                                               \
  int ours = below[0] && path_of(file, path) && is_below(path);                  \
  if (ours) switch (fate(WRITE, path)) {                                         \
    case 1: return -1;                                                           \
    case 2: if (length > 1) length = length > 512 ? length / 2 / 512 * 512 + 100 : length / 2; \
  }

ssize_t write(int file, const void *data, size_t length) {
  REAL(write);
  BEFORE_WRITE
  ssize_t n = real(file, data, length);
  return ours ? written(file, data, length, -1, n, path) : n;
}
ssize_t pwrite(int file, const void *data, size_t length, off_t at) {
  REAL(pwrite);
  BEFORE_WRITE
  ssize_t n = real(file, data, length, at);
  return ours ? written(file, data, length, at, n, path) : n;
}
ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) {
  REAL(pwrite64);
  BEFORE_WRITE
  ssize_t n = real(file, data, length, at);
  return ours ? written(file, data, length, at, n, path) : n;
}
ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  char path[4096];
  if (!(below[0] && path_of(file, path) && is_below(path))) return real(file, parts, count);
  ssize_t total = 0; /* as one write a part, which any caller has to live with */
  for (int i = 0; i < count; i++) {
    ssize_t n = write(file, parts[i].iov_base, parts[i].iov_len);
    if (n < 0) return total ? total : -1;
    total += n;
    if ((size_t)n < parts[i].iov_len) break;
  }
  return total;
}

#define ON_FILE(kind, offset, call)                                    \
  char path[4096];                                                     \
  int ours = below[0] && path_of(file, path) && is_below(path);        \
  if (ours && fate(kind, path)) return -1;                             \
  int result = call;                                                   \
  if (ours && !result) record(kind, path, "", offset, NULL, 0);        \
  return result;

int fsync(int file) { REAL(fsync); ON_FILE(SYNC, 0, real(file)) }
int fdatasync(int file) { REAL(fdatasync); ON_FILE(SYNC, 0, real(file)) }
int ftruncate(int file, off_t size) { REAL(ftruncate); ON_FILE(TRUNCATE, (uint64_t)size, real(file, size)) }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); ON_FILE(TRUNCATE, (uint64_t)size, real(file, size)) }

static int on_name(int kind, const char *path, const char *other) {
  return below[0] && (is_below(path) || is_below(other)) ? fate(kind, path) ? -1 : 1 : 0;
}
#define ON_NAME(kind, from, name, to, second, call)                    \
  char path[4096], other[4096] = "";                                   \
  int ours = 0;                                                        \
  if (below[0]) {                                                      \
    absolute(from, name, path);                                        \
    if (second) absolute(to, second, other);                           \
    if ((ours = on_name(kind, path, other)) < 0) return -1;            \
  }                                                                    \
  int result = call;                                                   \
  if (ours && !result) record(kind, path, other, 0, NULL, 0);          \
  return result;
#define NO_NAME ((const char *)0)

int rename(const char *a, const char *b) { REAL(rename); ON_NAME(RENAME, AT_FDCWD, a, AT_FDCWD, b, real(a, b)) }
int renameat(int f, const char *a, int t, const char *b) { REAL(renameat); ON_NAME(RENAME, f, a, t, b, real(f, a, t, b)) }
int renameat2(int f, const char *a, int t, const char *b, unsigned int flags) {
  REAL(renameat2);
  ON_NAME(RENAME, f, a, t, b, real(f, a, t, b, flags))
}
int unlink(const char *a) { REAL(unlink); ON_NAME(UNLINK, AT_FDCWD, a, 0, NO_NAME, real(a)) }
int unlinkat(int f, const char *a, int flags) {
  REAL(unlinkat);
  ON_NAME(flags & AT_REMOVEDIR ? REMOVE_FOLDER : UNLINK, f, a, 0, NO_NAME, real(f, a, flags))
}
int mkdir(const char *a, mode_t m) { REAL(mkdir); ON_NAME(MAKE_FOLDER, AT_FDCWD, a, 0, NO_NAME, real(a, m)) }
int rmdir(const char *a) { REAL(rmdir); ON_NAME(REMOVE_FOLDER, AT_FDCWD, a, 0, NO_NAME, real(a)) }

/* Opening counts where it makes a file or empties one. */
#define OPEN(from, call)                                                               \
  mode_t bits = 0;                                                                     \
  if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); bits = va_arg(rest, mode_t); va_end(rest); } \
  char path[4096];                                                                     \
  struct stat status;                                                                  \
  int makes = 0, empties = 0;                                                          \
  if (below[0] && flags & (O_CREAT | O_TRUNC)) {                                       \
    absolute(from, name, path);                                                        \
    if (is_below(path)) {                                                              \
      int there = !stat(path, &status);                                                \
      makes = !there && flags & O_CREAT, empties = there && flags & O_TRUNC && status.st_size; \
      if ((makes || empties) && fate(makes ? CREATE : TRUNCATE, path)) return -1;      \
    }                                                                                  \
  }                                                                                    \
  int file = call;                                                                     \
  if (file >= 0 && (makes || empties)) record(makes ? CREATE : TRUNCATE, path, "", 0, NULL, 0); \
  return file;

int open(const char *name, int flags, ...) { REAL(open); OPEN(AT_FDCWD, real(name, flags, bits)) }
int open64(const char *name, int flags, ...) { REAL(open64); OPEN(AT_FDCWD, real(name, flags, bits)) }
int openat(int from, const char *name, int flags, ...) { REAL(openat); OPEN(from, real(from, name, flags, bits)) }
int openat64(int from, const char *name, int flags, ...) { REAL(openat64); OPEN(from, real(from, name, flags, bits)) }

/* Locks, as of a network file system that has none. */
static int lock_fails(int file, int command) {
  char path[4096];
  return mode == LOCKS && (command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW) &&
         path_of(file, path) && is_below(path);
}
#define LOCK                                                                              \
  va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
  if (lock_fails(file, command)) { errno = failure; return -1; }                          \
  return real(file, command, argument);
int fcntl(int file, int command, ...) { REAL(fcntl); LOCK }
int fcntl64(int file, int command, ...) { REAL(fcntl64); LOCK }
int flock(int file, int operation) {
  REAL(flock);
  if (lock_fails(file, F_SETLK)) { errno = failure; return -1; }
  return real(file, operation);
}

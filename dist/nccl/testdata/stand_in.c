// A stand-in for libnccl.so.2 and libcuda.so.1 whose GPUs are memory of the host:
// several ranks of one process exchange bytes through it, each as late as all of
// its messages are there. It checks what the real ones would.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char internal[128]; } ncclUniqueId;
typedef struct { int world, rank, size, aborted; } Comm;
typedef struct Message { struct Message *next; int world, from, to; size_t bytes; char data[]; } Message;
typedef struct Op { struct Op *next; int send; Comm *comm; int peer; char *buffer; size_t bytes; struct Stream *stream; } Op;
typedef struct Stream { Op *waiting; } Stream;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Message *messages;
static int worlds;
static __thread Op *group;
static __thread int grouped;
static __thread void *current;

int ncclGetVersion(int *v) { *v = 23203; return 0; }

static ncclUniqueId idOf(int world) {
	ncclUniqueId id;
	for (int i = 0; i < 128; i++) id.internal[i] = (char)(i * 7 + 3);
	memcpy(id.internal + 60, &world, sizeof world);
	return id;
}

int ncclGetUniqueId(ncclUniqueId *id) {
	pthread_mutex_lock(&mutex);
	*id = idOf(++worlds);
	pthread_mutex_unlock(&mutex);
	return 0;
}

int ncclCommInitRank(Comm **comm, int size, ncclUniqueId id, int rank) {
	int world;
	memcpy(&world, id.internal + 60, sizeof world);
	ncclUniqueId want = idOf(world);
	if (!current || world < 1 || world > worlds || rank < 0 || rank >= size || memcmp(&id, &want, sizeof id)) return 4;
	*comm = calloc(1, sizeof **comm);
	(*comm)->world = world, (*comm)->rank = rank, (*comm)->size = size;
	return 0;
}

int ncclCommGetAsyncError(Comm *comm, int *result) { *result = 7; return 0; }
int ncclCommDestroy(Comm *comm) { free(comm); return 0; }
int ncclGroupStart(void) { grouped++; return 0; }

// progress receives what has come for a stream.
static int progress(Stream *s) {
	for (Op **o = &s->waiting; *o;) {
		Message **m = &messages;
		while (*m && !((*m)->world == (*o)->comm->world && (*m)->from == (*o)->peer && (*m)->to == (*o)->comm->rank)) m = &(*m)->next;
		if (!*m && !(*o)->comm->aborted) { o = &(*o)->next; continue; }
		if (*m) {
			Message *got = *m;
			memcpy((*o)->buffer, got->data, got->bytes < (*o)->bytes ? got->bytes : (*o)->bytes);
			*m = got->next;
			free(got);
		}
		Op *done = *o;
		*o = done->next;
		free(done);
	}
	return s->waiting ? 600 : 0;
}

int ncclCommAbort(Comm *comm) { pthread_mutex_lock(&mutex); comm->aborted = 1; pthread_mutex_unlock(&mutex); return 0; }

static int add(int send, char *buffer, size_t bytes, int type, int peer, Comm *comm, Stream *s) {
	if (type != 1 || !grouped || peer < 0 || peer >= comm->size || peer == comm->rank) return 4;
	Op *o = malloc(sizeof *o);
	*o = (Op){group, send, comm, peer, buffer, bytes, s};
	group = o;
	return 0;
}
int ncclSend(void *b, size_t n, int type, int peer, Comm *c, Stream *s) { return add(1, b, n, type, peer, c, s); }
int ncclRecv(void *b, size_t n, int type, int peer, Comm *c, Stream *s) { return add(0, b, n, type, peer, c, s); }

int ncclGroupEnd(void) {
	if (!grouped--) return 5;
	pthread_mutex_lock(&mutex);
	while (group) {
		Op *o = group;
		group = o->next;
		if (o->send) {
			Message *m = malloc(sizeof *m + o->bytes), **last = &messages;
			*m = (Message){0, o->comm->world, o->comm->rank, o->peer, o->bytes};
			memcpy(m->data, o->buffer, o->bytes);
			while (*last) last = &(*last)->next;
			*last = m;
			free(o);
		} else {
			o->next = o->stream->waiting;
			o->stream->waiting = o;
		}
	}
	pthread_mutex_unlock(&mutex);
	return 0;
}

const char *ncclGetErrorString(int result) { return result == 4 ? "invalid argument" : "other error"; }

int cuInit(unsigned flags) { return flags; }
int cuDeviceGet(int *d, int ordinal) { *d = ordinal; return ordinal < 8 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &messages; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxSetCurrent(void *c) { current = c; return 0; }
int cuStreamCreate(Stream **s, unsigned flags) { *s = calloc(1, sizeof **s); return current && flags == 1 ? 0 : 201; }
int cuStreamDestroy_v2(Stream *s) { free(s); return 0; }
int cuStreamQuery(Stream *s) { pthread_mutex_lock(&mutex); int r = progress(s); pthread_mutex_unlock(&mutex); return r; }
int cuStreamSynchronize(Stream *s) { return cuStreamQuery(s) ? 719 : 0; }
int cuMemAlloc_v2(void **p, size_t n) { *p = malloc(n); return current && n ? 0 : 1; }
int cuMemFree_v2(void *p) { free(p); return 0; }
int cuMemcpyHtoDAsync_v2(void *to, void *from, size_t n, Stream *s) { memcpy(to, from, n); return 0; }
int cuMemcpyDtoHAsync_v2(void *to, void *from, size_t n, Stream *s) { memcpy(to, from, n); return 0; }
int cuGetErrorString(int r, const char **text) { *text = r == 101 ? "invalid device ordinal" : "other error"; return 0; }

// A stand-in for CUDA's driver (libcuda.so.1) that runs kernels on the CPU, for tests of
// package cuda on machines without a GPU: the functions that the package binds, with
// cuda.h's signatures, and one device, "Emulated".
//
// It is as lazy as it may be: what is enqueued on a stream is done when somebody waits
// for it, so memory of the host that is given up too early is read too late, as on a GPU.
// It is stricter than a GPU where a GPU would give wrong numbers: memory that was never
// written reads as NaN, an access outside of an allocation or to a freed one is an error
// of the launch, barriers that not all threads reach and loops that wait for what never
// comes are found, and each error says which kernel, block and thread.
//
// emulator_set takes the device's properties and faults to come, as words such as
// "memory=1048576 arch=75 driver=11080 devices=0"; the environment variable
// CAROUSEL_EMULATED has such words for the start. "fail=719 after=3" lets the fourth
// launch of a kernel from now on fail.
#include "emulated.h"

#include <dlfcn.h>
#include <elf.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

using emulator::Dim;

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Values of cuda.h.
enum Result {
	ok = 0,
	invalid_value = 1,
	out_of_memory = 2,
	not_initialised = 3,
	no_device = 100,
	invalid_device = 101,
	invalid_image = 200,
	invalid_context = 201,
	invalid_handle = 400,
	not_found = 500,
	illegal_address = 700,
	out_of_resources = 701,
	misaligned_address = 716,
	launch_failed = 719,
	cooperative_too_large = 720,
	capture_unsupported = 900,
	capture_invalidated = 901,
	capture_unmatched = 903,
};

struct {
	int result;
	const char *name, *text;
} const results[] = {
	{ok, "CUDA_SUCCESS", "no error"},
	{invalid_value, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
	{out_of_memory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
	{not_initialised, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
	{no_device, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
	{invalid_device, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
	{invalid_image, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
	{invalid_context, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
	{invalid_handle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
	{not_found, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
	{illegal_address, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
	{out_of_resources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
	{misaligned_address, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
	{launch_failed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
	{cooperative_too_large, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", "too many blocks in cooperative launch"},
	{capture_unsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
	{capture_invalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
	{capture_unmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not initiated in this stream"},
};

// The device.
const int multiprocessors = 4;
const unsigned shared_default = 48 << 10, shared_most = 227 << 10, shared_of_multiprocessor = 228 << 10;
const unsigned threads_most = 1024, threads_of_multiprocessor = 2048;
const size_t page = 4096, stack_bytes = 64 << 10;
const uint32_t poison = 0x7fc0dead; // a NaN
const unsigned char red = 0xa5;     // around an allocation

std::recursive_mutex lock; // of all below; the device's thread holds it for whom it works
thread_local bool has_context;

struct Settings {
	uint64_t memory = 4ull << 30;
	int arch = 90, driver = 13000, devices = 1;
	int fail = 0, after = 0;
} settings;

bool initialised;
int lost;           // the error of a launch, after which all fails with it
std::string detail; // what the driver's text of the last error adds

int fault(int result, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fault(int result, const char *format, ...) {
	char text[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	detail = text;
	return result;
}

// Memory. Each allocation ends at a page that cannot be accessed, as closely as an
// alignment of 256 bytes lets it, and no address is used twice.
struct Allocation {
	uintptr_t start;
	size_t bytes;
	uintptr_t first, end; // the accessible pages
};
std::map<uintptr_t, Allocation> allocations; // of the device, by start
std::map<uintptr_t, Allocation> pinned;      // of the host
uintptr_t arena, arena_end;
const size_t arena_size = 1ull << 38; // of addresses only
uint64_t used;

bool allocate(size_t bytes, Allocation *m) {
	if (!arena) {
		void *p = mmap(nullptr, arena_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED)
			return false;
		arena = (uintptr_t)p, arena_end = arena + arena_size;
	}
	uintptr_t end = arena + page + ((bytes + 255 + page - 1) & ~(page - 1));
	if (end + page > arena_end)
		return false;
	m->end = end;
	m->bytes = bytes;
	m->start = (end - bytes) & ~(uintptr_t)255;
	m->first = m->start & ~(page - 1);
	if (mprotect((void *)m->first, end - m->first, PROT_READ | PROT_WRITE))
		return false;
	arena = end;
	memset((void *)m->first, red, m->start - m->first);
	memset((void *)(m->start + bytes), red, end - m->start - bytes);
	uint32_t *words = (uint32_t *)m->start;
	for (size_t i = 0; i < bytes / 4; i++)
		words[i] = poison;
	return true;
}

// intact reports whether nothing was written around an allocation.
bool intact(const Allocation &m) {
	for (uintptr_t p = m.first; p < m.end; p++) {
		if (p == m.start)
			p += m.bytes;
		if (p < m.end && *(unsigned char *)p != red)
			return false;
	}
	return true;
}

void release(const Allocation &m) {
	mprotect((void *)m.first, m.end - m.first, PROT_NONE);
	madvise((void *)m.first, m.end - m.first, MADV_DONTNEED);
}

// within reports whether memory is part of one allocation of the device.
bool within(uintptr_t p, size_t bytes) {
	auto m = allocations.upper_bound(p);
	if (m == allocations.begin())
		return false;
	--m;
	return p - m->second.start <= m->second.bytes && bytes <= m->second.bytes - (p - m->second.start);
}

// Modules and kernels.
struct Module {
	void *object;
	std::string path;
	emulator::Thread **now;
};
struct Function {
	std::string name;
	Module *module;
	const emulator::Kernel *kernel;
	unsigned shared = shared_default;
};
std::set<Module *> modules;
std::set<Function *> functions;

struct Launch {
	Function *fn = nullptr;
	Dim blocks = {}, threads = {};
	unsigned shared = 0;
	bool cooperative = false;
	std::vector<unsigned char> args;
};

// Fibers. All that follows up to Streams runs on the device's own thread.
struct Thread;
struct Fiber {
	jmp_buf at;
	Thread *thread;
};

struct Warp {
	int lanes, waiting, ended;
	emulator::Meeting meeting;
	unsigned char slots[2][emulator::lanes][emulator::slot_bytes]; // used in turn: a lane may be one meeting ahead
};

struct Block {
	Dim index;
	Allocation shared;
	int threads, waiting, ended;
	std::vector<Warp> warps;
	Thread *first;
};

enum State { running, at_block, at_warp, paused, ended };

struct Thread : emulator::Thread {
	Fiber *fiber;
	Block *in;
	Warp *warp;
	int lane;
	unsigned meetings; // how many it was at
	State state;
};

const Launch *launch;        // that runs
std::vector<Thread> threads; // of the blocks that run
size_t started;              // how many of them
std::deque<Thread *> ready;  // those that can go on
Thread *now;
bool backwards;     // the order of threads, which differs between launches
uint64_t pauses;    // since something changed
std::vector<Fiber *> idle;
std::vector<char *> stacks; // of all fibers
std::vector<Allocation> shared_memory; // of blocks, kept
jmp_buf scheduler;
sigjmp_buf crash;
volatile sig_atomic_t in_kernel;
pthread_t device_thread;

std::string place(const Thread *t) {
	char text[256];
	const Dim &b = t->in->index, &i = t->thread;
	snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u) of (%u,%u,%u), thread (%u,%u,%u) of (%u,%u,%u)", launch->fn->name.c_str(), b.x, b.y, b.z,
			 t->blocks.x, t->blocks.y, t->blocks.z, i.x, i.y, i.z, t->threads.x, t->threads.y, t->threads.z);
	return text;
}

const char *const meeting_names[] = {"sync_warp", "a shuffle", "an mma"};

std::string waits(const Thread *t) {
	switch (t->state) {
	case at_block:
		return "sync_block";
	case at_warp:
		return meeting_names[t->warp->meeting];
	default:
		return "a loop with pause";
	}
}

// stop ends the launch with an error.
[[noreturn]] void stop(int result, const std::string &text) {
	lost = fault(result, "%s", text.c_str());
	_longjmp(scheduler, 1);
}

void set_now(Thread *t) {
	now = t;
	*launch->fn->module->now = t;
}

void fiber_main();

Fiber *new_fiber() {
	auto f = new Fiber;
	auto stack = (char *)mmap(nullptr, stack_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stack == MAP_FAILED || mprotect(stack + page, stack_bytes, PROT_READ | PROT_WRITE))
		stop(launch_failed, "no memory for the stack of a fiber");
	stacks.push_back(stack);
	static ucontext_t back, start;
	static Fiber *made;
	getcontext(&start);
	start.uc_stack.ss_sp = stack + page;
	start.uc_stack.ss_size = stack_bytes;
	start.uc_link = nullptr;
	made = f;
	makecontext(&start, [] {
		Fiber *self = made;
		if (!_setjmp(self->at))
			setcontext(&back);
		fiber_main();
	}, 0);
	swapcontext(&back, &start);
	return f;
}

Thread *next_to_start() {
	if (started == threads.size())
		return nullptr;
	size_t i = started++;
	return &threads[backwards ? threads.size() - 1 - i : i];
}

// go_on runs the next thread.
[[noreturn]] void go_on() {
	Thread *t = next_to_start();
	if (t) {
		if (idle.empty())
			idle.push_back(new_fiber());
		t->fiber = idle.back();
		idle.pop_back();
		t->fiber->thread = t;
	} else if (!ready.empty()) {
		t = ready.front();
		ready.pop_front();
		t->state = running;
	} else {
		for (auto &w : threads)
			if (w.state != ended)
				stop(launch_failed, "deadlock: " + place(&w) + " waits in " + waits(&w) + " for ever");
		_longjmp(scheduler, 1);
	}
	set_now(t);
	_longjmp(t->fiber->at, 1);
}

void wait(State why) {
	Thread *t = now;
	t->state = why;
	if (!_setjmp(t->fiber->at))
		go_on();
}

void end_thread(Thread *t) {
	t->state = ended;
	pauses = 0;
	Block *b = t->in;
	b->ended++;
	t->warp->ended++;
	if (b->waiting || t->warp->waiting)
		for (Thread *w = b->first; w < b->first + b->threads; w++)
			if (w->state == at_block || (w->state == at_warp && w->warp == t->warp))
				stop(launch_failed, place(w) + " waits in " + waits(w) + ", but thread " + std::to_string(t->thread.x) + " has ended");
}

// fiber_main runs one thread after the other.
void fiber_main() {
	Fiber *self = now->fiber;
	for (;;) {
		launch->fn->kernel->run(launch->args.data());
		end_thread(self->thread);
		if (Thread *t = next_to_start()) {
			t->fiber = self;
			self->thread = t;
			set_now(t);
			continue;
		}
		idle.push_back(self);
		if (!_setjmp(self->at))
			go_on();
	}
}

// let_go makes those of n threads ready that wait for what has come.
void let_go(Thread *first, int n, State what) {
	pauses = 0;
	for (int i = 0; i < n; i++)
		if (Thread *t = &first[backwards ? n - 1 - i : i]; t->state == what) {
			t->state = running;
			ready.push_back(t);
		}
}

void sync_block() {
	Block *b = now->in;
	if (b->ended)
		stop(launch_failed, place(now) + " comes to sync_block, but another thread has ended");
	if (++b->waiting < b->threads)
		return wait(at_block);
	b->waiting = 0;
	let_go(b->first, b->threads, at_block);
}

const unsigned char (*meet(emulator::Meeting meeting, const void *mine, size_t bytes))[emulator::slot_bytes] {
	Thread *t = now;
	Warp *w = t->warp;
	auto slots = w->slots[t->meetings++ % 2];
	if (bytes)
		memcpy(slots[t->lane], mine, bytes);
	if (w->waiting && w->meeting != meeting)
		stop(launch_failed, place(t) + " comes to " + meeting_names[meeting] + ", while others of its warp wait in " + meeting_names[w->meeting]);
	w->meeting = meeting;
	if (w->ended)
		stop(launch_failed, place(t) + " comes to " + meeting_names[meeting] + ", but another thread of its warp has ended");
	if (++w->waiting < w->lanes) {
		wait(at_warp);
		return slots;
	}
	w->waiting = 0;
	let_go(t - t->lane, w->lanes, at_warp);
	return slots;
}

void pause_thread() {
	if (++pauses > 1000 * (ready.size() + 1) && started == threads.size())
		stop(launch_failed, "deadlock: " + place(now) + " waits in a loop with pause for ever");
	ready.push_back(now);
	wait(paused);
}

void progress() { pauses = 0; }

const emulator::Driver for_kernels = {sync_block, meet, pause_thread, progress};

struct sigaction old_actions[NSIG];
void *crash_address; // of the code

void *code_address(void *context) {
#if defined(__x86_64__)
	return (void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (void *)((ucontext_t *)context)->uc_mcontext.pc;
#endif
}

// source_line returns the line of a module's source at an address, as ", at FILE:LINE",
// if the system has addr2line.
std::string source_line(const Module *m, void *address) {
	Dl_info info;
	char command[200], line[200] = "";
	if (!dladdr(address, &info))
		return "";
	snprintf(command, sizeof command, "addr2line -s -e %s %p 2>/dev/null", m->path.c_str(), (void *)((char *)address - (char *)info.dli_fbase));
	if (FILE *f = popen(command, "r")) {
		if (!fgets(line, sizeof line, f))
			line[0] = 0;
		pclose(f);
	}
	line[strcspn(line, " \n")] = 0;
	return line[0] && line[0] != '?' ? std::string(", at ") + line : "";
}

// on_signal makes an error of a kernel's fault.
void on_signal(int signal, siginfo_t *info, void *context) {
	if (pthread_equal(pthread_self(), device_thread) && in_kernel) {
		in_kernel = 0;
		char text[200];
		int result = illegal_address;
		switch (signal) {
		case SIGFPE:
			snprintf(text, sizeof text, " divides by zero");
			result = launch_failed;
			break;
		case SIGILL:
			snprintf(text, sizeof text, " uses a misaligned address, an index outside of an array, or an int that overflows");
			result = misaligned_address;
			break;
		default:
			snprintf(text, sizeof text, " accesses memory at %p", info->si_addr);
			uintptr_t p = (uintptr_t)info->si_addr;
			auto m = allocations.upper_bound(p);
			if (m != allocations.begin() && p - (--m)->second.start < m->second.bytes + page)
				snprintf(text, sizeof text, " accesses byte %zu of an allocation of %zu", (size_t)(p - m->second.start), m->second.bytes);
		}
		lost = fault(result, "%s%s", place(now).c_str(), text);
		crash_address = code_address(context);
		siglongjmp(crash, 1);
	}
	auto &old = old_actions[signal];
	if (old.sa_flags & SA_SIGINFO)
		old.sa_sigaction(signal, info, context);
	else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN)
		old.sa_handler(signal);
	else
		abort();
}

// run_blocks runs blocks [from, to) of the launch, all at once.
void run_blocks(const Launch &l, uint64_t from, uint64_t to) {
	static std::vector<Block> blocks;
	unsigned n = l.threads.x * l.threads.y * l.threads.z;
	blocks.resize(to - from);
	threads.resize(n * (to - from));
	ready.clear();
	started = pauses = 0;
	for (uint64_t i = from; i < to; i++) {
		Block &b = blocks[i - from];
		b.index = {(unsigned)(i % l.blocks.x), (unsigned)(i / l.blocks.x % l.blocks.y), (unsigned)(i / l.blocks.x / l.blocks.y)};
		b.shared = shared_memory.empty() ? Allocation{} : shared_memory[i - from];
		for (size_t w = 0; w < b.shared.bytes / 4; w++)
			((uint32_t *)b.shared.start)[w] = poison;
		b.threads = n, b.waiting = b.ended = 0;
		b.warps.resize((n + emulator::lanes - 1) / emulator::lanes);
		b.first = &threads[(i - from) * n];
		for (auto &w : b.warps)
			w.lanes = w.waiting = w.ended = 0;
		for (unsigned k = 0; k < n; k++) {
			Thread &t = b.first[k];
			t.thread = {k % l.threads.x, k / l.threads.x % l.threads.y, k / l.threads.x / l.threads.y};
			t.block = b.index, t.threads = l.threads, t.blocks = l.blocks, t.shared = (unsigned char *)b.shared.start;
			t.fiber = nullptr, t.in = &b, t.warp = &b.warps[k / emulator::lanes], t.lane = k % emulator::lanes;
			t.meetings = 0, t.state = running;
			t.warp->lanes++;
		}
	}
	if (!_setjmp(scheduler))
		go_on();
	if (lost)
		idle.clear(); // others were left amid a kernel
	for (auto &b : blocks)
		if (!lost && b.shared.bytes && !intact(b.shared))
			lost = fault(illegal_address, "%s writes outside of its shared memory of %u bytes", place(b.first).c_str(), l.shared);
}

void run(const Launch &l) {
	if (settings.fail && settings.after-- == 0) {
		lost = fault(settings.fail, "as asked for");
		return;
	}
	launch = &l;
	backwards = !backwards;
	uint64_t n = (uint64_t)l.blocks.x * l.blocks.y * l.blocks.z, at_once = l.cooperative ? n : 1;
	for (uint64_t i = 0; l.shared && i < at_once && !lost; i++) {
		Allocation m;
		if (!allocate(l.shared, &m))
			lost = fault(launch_failed, "no memory for shared memory");
		shared_memory.push_back(m);
	}
	if (!sigsetjmp(crash, 1)) {
		in_kernel = 1;
		for (uint64_t i = 0; i < n && !lost; i += at_once) {
			uint64_t from = backwards ? n - i - at_once : i;
			run_blocks(l, from, from + at_once);
		}
	} else {
		idle.clear();
		detail += source_line(l.fn->module, crash_address);
	}
	in_kernel = 0;
	for (auto &m : shared_memory)
		release(m);
	shared_memory.clear();
}

// Streams.
struct Stream;
struct Event {
	Stream *stream = nullptr; // where it was recorded last
	uint64_t number = 0;
	double time = 0; // when it was passed, in milliseconds
};

struct Op {
	enum Kind { launch_kernel, to_device, to_host, within_device, set_words, free_memory, record_event, call_host } kind;
	Op(Kind k = launch_kernel) : kind(k) {}
	Launch l;
	uintptr_t dst = 0, src = 0;
	size_t bytes = 0;
	uint32_t word = 0;
	Event *event = nullptr;
	void (*call)(void *) = nullptr;
	void *data = nullptr;
};

struct Graph;
struct Stream {
	std::deque<Op> ops;
	uint64_t given = 0, done = 0; // numbers of ops
	Graph *capture = nullptr;
	bool spoiled = false; // something happened that a capture does not allow
};
std::set<Stream *> streams;
std::set<Event *> events;

double milliseconds() {
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

void do_op(Op &o) {
	bool valid = true;
	switch (o.kind) {
	case Op::launch_kernel:
		run(o.l);
		break;
	case Op::to_device:
		if ((valid = within(o.dst, o.bytes)))
			memcpy((void *)o.dst, (const void *)o.src, o.bytes);
		break;
	case Op::to_host:
		if ((valid = within(o.src, o.bytes)))
			memcpy((void *)o.dst, (const void *)o.src, o.bytes);
		break;
	case Op::within_device:
		if ((valid = within(o.src, o.bytes) && within(o.dst, o.bytes)))
			memmove((void *)o.dst, (const void *)o.src, o.bytes);
		break;
	case Op::set_words:
		if ((valid = within(o.dst, o.bytes)))
			for (size_t i = 0; i < o.bytes / 4; i++)
				((uint32_t *)o.dst)[i] = o.word;
		break;
	case Op::free_memory: {
		auto m = allocations.find(o.dst);
		if (!(valid = m != allocations.end()))
			break;
		if (!intact(m->second))
			lost = fault(illegal_address, "a kernel has written around an allocation of %zu bytes", m->second.bytes);
		release(m->second);
		allocations.erase(m);
		break;
	}
	case Op::record_event:
		o.event->time = milliseconds();
		break;
	case Op::call_host:
		o.call(o.data);
		break;
	}
	if (!valid)
		lost = fault(illegal_address, "a copy, a fill or a free of memory that has been freed");
}

// The device's thread. Signals of the process are not for it, so Go's handlers do not
// run there.
pthread_mutex_t work_lock = PTHREAD_MUTEX_INITIALIZER; // C++'s would be destroyed at exit, which waits for the thread
pthread_cond_t work_changed = PTHREAD_COND_INITIALIZER;
std::function<void()> *work;

void *device_main(void *) {
	stack_t stack = {};
	stack.ss_size = 64 << 10;
	stack.ss_sp = malloc(stack.ss_size);
	sigaltstack(&stack, nullptr);
	pthread_mutex_lock(&work_lock);
	for (;;) {
		while (!work)
			pthread_cond_wait(&work_changed, &work_lock);
		(*work)();
		work = nullptr;
		pthread_cond_broadcast(&work_changed);
	}
}

void on_the_device(std::function<void()> f) {
	pthread_mutex_lock(&work_lock);
	static bool running;
	if (!running) {
		running = true;
		struct sigaction action = {};
		action.sa_sigaction = on_signal;
		action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
		sigfillset(&action.sa_mask);
		sigset_t all, before;
		sigfillset(&all);
		for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
			sigaction(s, &action, &old_actions[s]);
			sigdelset(&all, s);
		}
		pthread_sigmask(SIG_SETMASK, &all, &before);
		pthread_create(&device_thread, nullptr, device_main, nullptr);
		pthread_detach(device_thread);
		pthread_sigmask(SIG_SETMASK, &before, nullptr);
	}
	work = &f;
	pthread_cond_broadcast(&work_changed);
	while (work)
		pthread_cond_wait(&work_changed, &work_lock);
	pthread_mutex_unlock(&work_lock);
}

// finish does what a stream was given up to an op of a number.
int finish(Stream *s, uint64_t number) {
	if (s->done < number && !lost)
		on_the_device([&] {
			while (s->done < number && !lost) {
				do_op(s->ops.front());
				s->ops.pop_front();
				s->done++;
			}
		});
	return lost;
}

// Graphs.
struct Node {
	std::vector<Op> ops; // of a child graph perhaps many
	std::vector<Node *> after;
	bool kernel = false;
};
struct Graph {
	std::vector<std::unique_ptr<Node>> nodes;
};
struct Exec {
	Graph *of;
	std::vector<std::vector<Op>> parts;
	std::map<Node *, size_t> part;
};
std::set<Graph *> graphs;
std::set<Exec *> execs;

// ordered returns a graph's nodes in an order that keeps its dependencies. Where they
// allow several, it is the one in which nodes were not added.
std::vector<Node *> ordered(Graph *g) {
	std::map<Node *, std::vector<Node *>> before;
	std::map<Node *, size_t> missing;
	std::vector<Node *> order, free;
	for (auto &n : g->nodes) {
		for (Node *a : n->after)
			before[a].push_back(n.get());
		if (!(missing[n.get()] = n->after.size()))
			free.push_back(n.get());
	}
	while (!free.empty()) {
		Node *n = free.back();
		free.pop_back();
		order.push_back(n);
		for (Node *next : before[n])
			if (!--missing[next])
				free.push_back(next);
	}
	return order;
}

int occupancy(unsigned threads, unsigned shared) {
	if (!threads || threads > threads_most || shared > shared_most)
		return 0;
	int n = 2;
	if (threads * 2 > threads_of_multiprocessor || (shared + 1024) * 2 > shared_of_multiprocessor)
		n = 1;
	return n;
}

// check says what is wrong with a launch.
int check(const Launch &l) {
	if (!functions.count(l.fn))
		return fault(invalid_handle, "the kernel is unknown");
	const char *name = l.fn->name.c_str();
	uint64_t n = (uint64_t)l.threads.x * l.threads.y * l.threads.z, blocks = (uint64_t)l.blocks.x * l.blocks.y * l.blocks.z;
	if (!blocks || l.blocks.x > 0x7fffffff || l.blocks.y > 0xffff || l.blocks.z > 0xffff)
		return fault(invalid_value, "kernel %s with a grid of (%u,%u,%u)", name, l.blocks.x, l.blocks.y, l.blocks.z);
	if (!n || n > threads_most)
		return fault(invalid_value, "kernel %s with %llu threads of a block", name, (unsigned long long)n);
	if (n > l.fn->kernel->threads)
		return fault(out_of_resources, "kernel %s is for %u threads of a block, not %llu", name, l.fn->kernel->threads, (unsigned long long)n);
	if (l.shared > l.fn->shared)
		return fault(invalid_value, "kernel %s with %u bytes of shared memory, where %u are allowed", name, l.shared, l.fn->shared);
	if (l.cooperative && blocks > (uint64_t)multiprocessors * occupancy(n, l.shared))
		return fault(cooperative_too_large, "kernel %s with %llu blocks, of which %d run at once", name, (unsigned long long)blocks, multiprocessors * occupancy(n, l.shared));
	return ok;
}

// The state of the device for a call that needs a context.
int state() {
	if (!initialised)
		return not_initialised;
	if (!lost)
		detail.clear();
	if (!has_context)
		return fault(invalid_context, "this thread has none");
	return lost;
}

#define BEGIN                                          \
	std::lock_guard<std::recursive_mutex> guard(lock); \
	if (int result = state())                          \
		return result;

#define BEGIN_ON(stream)                                      \
	BEGIN                                                     \
	if (!streams.count(stream))                               \
		return fault(invalid_handle, "the stream is unknown");

int add_node(Graph *g, Node **node, Node *const *after, size_t count, std::vector<Op> ops, bool kernel) {
	auto n = std::make_unique<Node>();
	for (size_t i = 0; i < count; i++) {
		bool known = false;
		for (auto &other : g->nodes)
			known = known || other.get() == after[i];
		if (!known)
			return fault(invalid_value, "a dependency is not a node of the graph");
		n->after.push_back(after[i]);
	}
	n->ops = std::move(ops);
	n->kernel = kernel;
	*node = n.get();
	g->nodes.push_back(std::move(n));
	return ok;
}

int enqueue(Stream *s, Op o) {
	if (s->capture) {
		Node *last = s->capture->nodes.empty() ? nullptr : s->capture->nodes.back().get(), *node;
		bool kernel = o.kind == Op::launch_kernel;
		if (o.kind == Op::free_memory || o.kind == Op::record_event)
			return capture_unsupported;
		return add_node(s->capture, &node, &last, last ? 1 : 0, {std::move(o)}, kernel);
	}
	s->ops.push_back(std::move(o));
	s->given++;
	return ok;
}

int make_launch(Op *o, Function *f, Dim blocks, Dim threads, unsigned shared, bool cooperative, void **params) {
	Launch &l = o->l;
	l.fn = f, l.blocks = blocks, l.threads = threads, l.shared = shared, l.cooperative = cooperative;
	if (int result = check(l))
		return result;
	if (!params || !params[0])
		return fault(invalid_value, "kernel %s without arguments", f->name.c_str());
	auto args = (const unsigned char *)params[0];
	l.args.assign(args, args + f->kernel->bytes);
	return ok;
}

int copy(Stream *s, Op::Kind kind, uintptr_t dst, uintptr_t src, size_t bytes) {
	bool device_dst = kind != Op::to_host, device_src = kind != Op::to_device;
	if ((device_dst && !within(dst, bytes)) || (device_src && !within(src, bytes)))
		return fault(invalid_value, "a copy of %zu bytes is not within an allocation", bytes);
	Op o(kind);
	o.dst = dst, o.src = src, o.bytes = bytes;
	return enqueue(s, std::move(o));
}

void set(const char *words) {
	std::string all = words;
	for (size_t at = 0; at < all.size();) {
		size_t end = all.find(' ', at);
		if (end == std::string::npos)
			end = all.size();
		std::string word = all.substr(at, end - at);
		at = end + 1;
		size_t is = word.find('=');
		if (is == std::string::npos)
			continue;
		std::string name = word.substr(0, is);
		long long v = atoll(word.c_str() + is + 1);
		if (name == "memory")
			settings.memory = v;
		else if (name == "arch")
			settings.arch = v;
		else if (name == "driver")
			settings.driver = v;
		else if (name == "devices")
			settings.devices = v;
		else if (name == "fail")
			settings.fail = v;
		else if (name == "after")
			settings.after = v;
		else
			fprintf(stderr, "emulator: there is no setting %s\n", name.c_str());
	}
}

} // namespace

// emulator_set changes the settings.
EXPORT void emulator_set(const char *words) {
	std::lock_guard<std::recursive_mutex> guard(lock);
	set(words);
}

// emulator_check returns 1 and a text if something is wrong with the device's memory.
EXPORT int emulator_check(char *text, size_t bytes) {
	std::lock_guard<std::recursive_mutex> guard(lock);
	for (auto &m : allocations)
		if (!intact(m.second)) {
			snprintf(text, bytes, "a kernel has written around an allocation of %zu bytes", m.second.bytes);
			return 1;
		}
	return 0;
}

// emulator_end gives back the device's memory: a process may have only so many mappings, and
// tests have many devices.
EXPORT void emulator_end() {
	std::lock_guard<std::recursive_mutex> guard(lock);
	if (arena)
		munmap((void *)(arena_end - arena_size), arena_size);
	allocations.clear();
	arena = arena_end = 0;
	for (char *stack : stacks)
		munmap(stack, stack_bytes + page);
	stacks.clear();
	idle.clear();
}

EXPORT int cuInit(unsigned) {
	std::lock_guard<std::recursive_mutex> guard(lock);
	if (!initialised && getenv("CAROUSEL_EMULATED"))
		set(getenv("CAROUSEL_EMULATED"));
	if (settings.devices == 0)
		return no_device;
	initialised = true;
	return ok;
}

EXPORT int cuDriverGetVersion(int *version) {
	*version = settings.driver;
	return ok;
}

EXPORT int cuGetErrorName(int result, const char **name) {
	for (auto &r : results)
		if (r.result == result) {
			*name = r.name;
			return ok;
		}
	*name = nullptr;
	return invalid_value;
}

EXPORT int cuGetErrorString(int result, const char **text) {
	std::lock_guard<std::recursive_mutex> guard(lock);
	static std::string all;
	for (auto &r : results)
		if (r.result == result) {
			all = r.text;
			if (result && !detail.empty())
				all += ": " + detail;
			*text = all.c_str();
			return ok;
		}
	*text = nullptr;
	return invalid_value;
}

EXPORT int cuDeviceGetCount(int *count) {
	*count = settings.devices;
	return initialised ? ok : not_initialised;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
	if (ordinal < 0 || ordinal >= settings.devices)
		return invalid_device;
	*device = ordinal;
	return initialised ? ok : not_initialised;
}

EXPORT int cuDeviceGetName(char *name, int bytes, int) {
	snprintf(name, bytes, "Emulated");
	return ok;
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int) {
	switch (attribute) {
	case 1: // threads of a block
		*value = threads_most;
		break;
	case 8: // shared memory of a block
		*value = shared_default;
		break;
	case 10: // lanes of a warp
		*value = emulator::lanes;
		break;
	case 16:
		*value = multiprocessors;
		break;
	case 39: // threads of a multiprocessor
		*value = threads_of_multiprocessor;
		break;
	case 75:
		*value = settings.arch / 10;
		break;
	case 76:
		*value = settings.arch % 10;
		break;
	case 81: // shared memory of a multiprocessor
		*value = shared_of_multiprocessor;
		break;
	case 95:  // cooperative launches
	case 115: // pools of memory
		*value = 1;
		break;
	case 97: // shared memory of a block that has opted in
		*value = shared_most;
		break;
	default:
		return fault(invalid_value, "attribute %d is not emulated", attribute);
	}
	return ok;
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int) {
	*bytes = settings.memory;
	return ok;
}

EXPORT int cuDevicePrimaryCtxRetain(void **context, int) {
	*context = &settings;
	return initialised ? lost : not_initialised;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return ok; }

EXPORT int cuCtxSetCurrent(void *context) {
	if (!initialised)
		return not_initialised;
	if (context && context != &settings)
		return invalid_context;
	has_context = context;
	return lost;
}

EXPORT int cuDeviceGetDefaultMemPool(void **pool, int) {
	*pool = &used;
	return ok;
}

EXPORT int cuMemPoolSetAttribute(void *pool, int attribute, void *) {
	if (pool != &used || attribute != 4)
		return invalid_value;
	return ok;
}

EXPORT int cuStreamCreate(Stream **stream, unsigned) {
	BEGIN
	streams.insert(*stream = new Stream);
	return ok;
}

EXPORT int cuStreamDestroy_v2(Stream *stream) {
	BEGIN_ON(stream)
	int result = finish(stream, stream->given);
	for (Event *e : events)
		if (e->stream == stream)
			e->stream = nullptr;
	streams.erase(stream);
	delete stream;
	return result;
}

EXPORT int cuStreamSynchronize(Stream *stream) {
	BEGIN_ON(stream)
	if (stream->capture) {
		stream->spoiled = true;
		return capture_unsupported;
	}
	return finish(stream, stream->given);
}

EXPORT int cuStreamBeginCapture_v2(Stream *stream, int mode) {
	BEGIN_ON(stream)
	if (stream->capture || mode < 0 || mode > 2)
		return invalid_value;
	stream->capture = new Graph;
	stream->spoiled = false;
	return ok;
}

EXPORT int cuStreamEndCapture(Stream *stream, Graph **graph) {
	BEGIN_ON(stream)
	if (!stream->capture)
		return capture_unmatched;
	Graph *captured = stream->capture;
	stream->capture = *graph = nullptr;
	if (stream->spoiled) {
		delete captured;
		return capture_invalidated;
	}
	graphs.insert(*graph = captured);
	return ok;
}

EXPORT int cuEventCreate(Event **event, unsigned) {
	BEGIN
	events.insert(*event = new Event);
	return ok;
}

EXPORT int cuEventRecord(Event *event, Stream *stream) {
	BEGIN_ON(stream)
	if (!events.count(event))
		return invalid_handle;
	Op o(Op::record_event);
	o.event = event;
	if (int result = enqueue(stream, o))
		return result;
	event->stream = stream;
	event->number = stream->given;
	return ok;
}

EXPORT int cuEventSynchronize(Event *event) {
	BEGIN
	if (!events.count(event))
		return invalid_handle;
	return event->stream ? finish(event->stream, event->number) : ok;
}

EXPORT int cuEventElapsedTime(float *ms, Event *from, Event *to) {
	BEGIN
	if (!events.count(from) || !events.count(to) || !from->stream || !to->stream)
		return invalid_handle;
	if (from->stream->done < from->number || to->stream->done < to->number)
		return 600; // CUDA_ERROR_NOT_READY
	*ms = to->time - from->time;
	return ok;
}

EXPORT int cuEventDestroy_v2(Event *event) {
	BEGIN
	if (!events.count(event))
		return invalid_handle;
	int result = event->stream ? finish(event->stream, event->number) : ok;
	events.erase(event);
	delete event;
	return result;
}

EXPORT int cuMemAllocAsync(uintptr_t *address, size_t bytes, Stream *stream) {
	BEGIN_ON(stream)
	if (stream->capture) {
		stream->spoiled = true;
		return capture_unsupported;
	}
	if (!bytes)
		return fault(invalid_value, "an allocation of 0 bytes");
	Allocation m;
	if (used + bytes > settings.memory || !allocate(bytes, &m))
		return out_of_memory;
	used += bytes;
	allocations[m.start] = m;
	*address = m.start;
	return ok;
}

EXPORT int cuMemFreeAsync(uintptr_t address, Stream *stream) {
	BEGIN_ON(stream)
	auto m = allocations.find(address);
	if (m == allocations.end())
		return fault(invalid_value, "a free of what is no allocation");
	used -= m->second.bytes;
	Op o(Op::free_memory);
	o.dst = address;
	return enqueue(stream, o);
}

EXPORT int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
	BEGIN
	Allocation m;
	if (!allocate(bytes, &m))
		return out_of_memory;
	pinned[m.start] = m;
	*address = (void *)m.start;
	return ok;
}

EXPORT int cuMemFreeHost(void *address) {
	BEGIN
	auto m = pinned.find((uintptr_t)address);
	if (m == pinned.end())
		return invalid_value;
	for (Stream *s : streams) // as the driver does
		if (int result = finish(s, s->given))
			return result;
	release(m->second);
	pinned.erase(m);
	return ok;
}

EXPORT int cuMemGetInfo_v2(size_t *free, size_t *total) {
	BEGIN
	*total = settings.memory;
	*free = settings.memory - used;
	return ok;
}

EXPORT int cuMemcpyHtoDAsync_v2(uintptr_t dst, const void *src, size_t bytes, Stream *stream) {
	BEGIN_ON(stream)
	return copy(stream, Op::to_device, dst, (uintptr_t)src, bytes);
}

EXPORT int cuMemcpyDtoHAsync_v2(void *dst, uintptr_t src, size_t bytes, Stream *stream) {
	BEGIN_ON(stream)
	return copy(stream, Op::to_host, (uintptr_t)dst, src, bytes);
}

EXPORT int cuMemcpyDtoDAsync_v2(uintptr_t dst, uintptr_t src, size_t bytes, Stream *stream) {
	BEGIN_ON(stream)
	return copy(stream, Op::within_device, dst, src, bytes);
}

EXPORT int cuMemsetD32Async(uintptr_t dst, unsigned word, size_t words, Stream *stream) {
	BEGIN_ON(stream)
	if (!within(dst, 4 * words) || dst % 4)
		return fault(invalid_value, "a fill of %zu words is not within an allocation", words);
	Op o(Op::set_words);
	o.dst = dst, o.bytes = 4 * words, o.word = word;
	return enqueue(stream, o);
}

// cuLaunchHostFunc is how stand-ins for NVIDIA's libraries do their work in a stream's order.
EXPORT int cuLaunchHostFunc(Stream *stream, void (*call)(void *), void *data) {
	BEGIN_ON(stream)
	Op o(Op::call_host);
	o.call = call, o.data = data;
	return enqueue(stream, o);
}

EXPORT int cuModuleLoadData(Module **module, const void *image) {
	BEGIN
	auto elf = (const Elf64_Ehdr *)image;
	if (memcmp(elf->e_ident, ELFMAG, SELFMAG))
		return invalid_image;
	size_t bytes = elf->e_shoff + (size_t)elf->e_shnum * elf->e_shentsize;
	int fd = memfd_create("kernels", 0); // stays open, so that no other gets its name
	if (fd < 0 || write(fd, image, bytes) != (ssize_t)bytes)
		return out_of_memory;
	std::string path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd);
	void *object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
	if (!object)
		return fault(invalid_image, "%s", dlerror());
	auto driver = (const emulator::Driver **)dlsym(object, "emulated_driver");
	auto now = (emulator::Thread **)dlsym(object, "emulated_now");
	if (!driver || !now)
		return invalid_image;
	*driver = &for_kernels;
	modules.insert(*module = new Module{object, path, now});
	return ok;
}

EXPORT int cuModuleUnload(Module *module) {
	BEGIN
	if (!modules.erase(module))
		return invalid_handle;
	return ok; // launches that are still to come may use it
}

EXPORT int cuModuleGetFunction(Function **function, Module *module, const char *name) {
	BEGIN
	if (!modules.count(module))
		return invalid_handle;
	auto kernel = (const emulator::Kernel *)dlsym(module->object, (std::string(name) + "__kernel").c_str());
	if (!kernel)
		return fault(not_found, "there is no kernel %s", name);
	functions.insert(*function = new Function{name, module, kernel});
	return ok;
}

EXPORT int cuFuncSetAttribute(Function *function, int attribute, int value) {
	BEGIN
	if (!functions.count(function))
		return invalid_handle;
	if (attribute != 8 || value < 0 || (unsigned)value > shared_most)
		return fault(invalid_value, "attribute %d of kernel %s cannot be %d", attribute, function->name.c_str(), value);
	function->shared = value;
	return ok;
}

EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Function *function, int threads, size_t shared) {
	BEGIN
	if (!functions.count(function))
		return invalid_handle;
	*blocks = (unsigned)threads > function->kernel->threads || shared > function->shared ? 0 : occupancy(threads, shared);
	return ok;
}

EXPORT int cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream *stream, void **params, void **extra) {
	BEGIN_ON(stream)
	Op o;
	if (extra)
		return fault(invalid_value, "extra is not emulated");
	if (int result = make_launch(&o, f, {gx, gy, gz}, {bx, by, bz}, shared, false, params))
		return result;
	return enqueue(stream, std::move(o));
}

EXPORT int cuLaunchCooperativeKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, Stream *stream, void **params) {
	BEGIN_ON(stream)
	Op o;
	if (int result = make_launch(&o, f, {gx, gy, gz}, {bx, by, bz}, shared, true, params))
		return result;
	return enqueue(stream, std::move(o));
}

// CUDA_KERNEL_NODE_PARAMS_v2.
struct NodeParams {
	Function *func;
	unsigned gx, gy, gz, bx, by, bz, shared;
	void **params, **extra;
	void *kern, *ctx;
};
static_assert(offsetof(NodeParams, params) == 40 && sizeof(NodeParams) == 72, "as cuda.h has it");

EXPORT int cuGraphCreate(Graph **graph, unsigned flags) {
	BEGIN
	if (flags)
		return invalid_value;
	graphs.insert(*graph = new Graph);
	return ok;
}

EXPORT int cuGraphDestroy(Graph *graph) {
	BEGIN
	if (!graphs.erase(graph))
		return fault(invalid_value, "the graph is unknown");
	delete graph;
	return ok;
}

EXPORT int cuGraphAddKernelNode_v2(Node **node, Graph *graph, Node *const *after, size_t count, const NodeParams *p) {
	BEGIN
	if (!graphs.count(graph))
		return fault(invalid_value, "the graph is unknown");
	Op o;
	if (int result = make_launch(&o, p->func, {p->gx, p->gy, p->gz}, {p->bx, p->by, p->bz}, p->shared, false, p->params))
		return result;
	return add_node(graph, node, after, count, {std::move(o)}, true);
}

EXPORT int cuGraphAddChildGraphNode(Node **node, Graph *graph, Node *const *after, size_t count, Graph *child) {
	BEGIN
	if (!graphs.count(graph) || !graphs.count(child))
		return fault(invalid_value, "the graph is unknown");
	std::vector<Op> ops;
	for (Node *n : ordered(child))
		ops.insert(ops.end(), n->ops.begin(), n->ops.end());
	return add_node(graph, node, after, count, std::move(ops), false);
}

EXPORT int cuGraphKernelNodeSetAttribute(Node *node, int attribute, const int *value) {
	BEGIN
	for (Graph *g : graphs)
		for (auto &n : g->nodes)
			if (n.get() == node && node->kernel && attribute == 2) {
				node->ops[0].l.cooperative = *value;
				return check(node->ops[0].l);
			}
	return fault(invalid_value, "attribute %d of a node", attribute);
}

EXPORT int cuGraphInstantiateWithFlags(Exec **exec, Graph *graph, unsigned long long flags) {
	BEGIN
	if (!graphs.count(graph) || flags)
		return fault(invalid_value, "the graph is unknown");
	auto e = new Exec{graph, {}, {}};
	for (Node *n : ordered(graph)) {
		e->part[n] = e->parts.size();
		e->parts.push_back(n->ops);
	}
	execs.insert(*exec = e);
	return ok;
}

EXPORT int cuGraphExecDestroy(Exec *exec) {
	BEGIN
	if (!execs.erase(exec))
		return fault(invalid_value, "the graph is unknown");
	delete exec;
	return ok;
}

EXPORT int cuGraphExecKernelNodeSetParams_v2(Exec *exec, Node *node, const NodeParams *p) {
	BEGIN
	if (!execs.count(exec) || !graphs.count(exec->of))
		return fault(invalid_value, "the graph is unknown, or that of which it was made is no more");
	auto part = exec->part.find(node);
	if (part == exec->part.end() || !node->kernel)
		return fault(invalid_value, "the node is no kernel of the graph");
	Op o, &old = exec->parts[part->second][0];
	if (int result = make_launch(&o, p->func, {p->gx, p->gy, p->gz}, {p->bx, p->by, p->bz}, p->shared, old.l.cooperative, p->params))
		return result;
	old = std::move(o);
	return ok;
}

EXPORT int cuGraphLaunch(Exec *exec, Stream *stream) {
	BEGIN_ON(stream)
	if (!execs.count(exec))
		return fault(invalid_value, "the graph is unknown");
	for (auto &part : exec->parts)
		for (auto &o : part)
			if (int result = enqueue(stream, o))
				return result;
	return ok;
}

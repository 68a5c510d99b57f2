// The words of kernels/prelude.cu that need a GPU, in C++ for the CPU: a kernel that is
// compiled after this file, with EMULATED defined, becomes a shared object that the
// stand-in for CUDA's driver (driver.cc) loads in the place of a cubin. driver.cc includes
// the first part alone, which is what the two agree on.
//
// Each thread of a kernel is a fiber. A fiber runs until it waits, so an order that the
// kernel does not force is one that the driver chose: it differs between launches.
#pragma once
#include <stddef.h>

namespace emulator {

struct Dim {
	unsigned x, y, z;
};

// Kinds of meeting of the lanes of a warp: all lanes must come to the same.
enum Meeting { sync_meeting, shuffle_meeting, mma_meeting };

const int lanes = 32;
const int slot_bytes = 32; // the most that a lane gives to the others

// Thread is what a kernel sees of itself.
struct Thread {
	Dim thread, block, threads, blocks;
	unsigned char *shared;
};

// Driver is the functions of the driver that kernels call.
struct Driver {
	void (*sync_block)();
	// meet waits for the warp and returns the slots of its lanes, to which each has
	// brought so many bytes.
	const unsigned char (*(*meet)(Meeting, const void *mine, size_t bytes))[slot_bytes];
	void (*pause)();    // lets other threads run, in a loop that waits for them
	void (*progress)(); // tells that such loops have got something new to see
};

// Kernel is what a shared object has of each kernel, as NAME__kernel.
struct Kernel {
	void (*run)(const void *args);
	unsigned bytes;   // of args
	unsigned threads; // the most of a block
};

} // namespace emulator

#ifdef EMULATED
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// The driver sets both: emulated_now whenever another fiber runs.
extern "C" {
emulator::Thread *emulated_now;
const emulator::Driver *emulated_driver;
}

#define DEVICE static inline __attribute__((unused))
#define DEVICE_CALLED DEVICE
#define KERNEL_OF(count, name, args_type)                                             \
	static void name##__body(const args_type &a);                                      \
	extern "C" {                                                                       \
	extern const emulator::Kernel name##__kernel;                                      \
	const emulator::Kernel name##__kernel = {                                          \
		[](const void *arguments_) { name##__body(*(const args_type *)arguments_); },          \
		sizeof(args_type), count};                                                      \
	}                                                                                  \
	static void name##__body(const args_type &a)
#define KERNEL(name, args_type) KERNEL_OF(BLOCK, name, args_type)
#define SHARED(type, name) type *name = (type *)emulated_now->shared

#define threadIdx (emulated_now->thread)
#define blockIdx (emulated_now->block)
#define blockDim (emulated_now->threads)
#define gridDim (emulated_now->blocks)

DEVICE void sync_block() { emulated_driver->sync_block(); }
DEVICE void sync_warp() { emulated_driver->meet(emulator::sync_meeting, nullptr, 0); }
DEVICE void pause() { emulated_driver->pause(); }

// One thread runs at a time, so what is atomic on a GPU is plain here.
DEVICE unsigned atomic_add(unsigned *p, unsigned v) {
	unsigned old = *(volatile unsigned *)p;
	*(volatile unsigned *)p = old + v;
	emulated_driver->progress();
	return old;
}
DEVICE unsigned load_acquire(const unsigned *p) { return *(const volatile unsigned *)p; }
DEVICE float load_l2(const float *p) { return *(const volatile float *)p; }
DEVICE unsigned load_l2(const unsigned *p) { return *(const volatile unsigned *)p; }

// Bits of numbers.
template <class To, class From> static inline To emulated_bits(From v) {
	static_assert(sizeof(To) == sizeof(From), "sizes differ");
	To to;
	memcpy(&to, &v, sizeof to);
	return to;
}
DEVICE float __uint_as_float(unsigned v) { return emulated_bits<float>(v); }
DEVICE float __int_as_float(int v) { return emulated_bits<float>(v); }
DEVICE unsigned __float_as_uint(float v) { return emulated_bits<unsigned>(v); }
DEVICE int __float_as_int(float v) { return emulated_bits<int>(v); }
DEVICE double __longlong_as_double(long long v) { return emulated_bits<double>(v); }
DEVICE long long __double_as_longlong(double v) { return emulated_bits<long long>(v); }

// Rounding to nearest, ties to even; to_tf32 takes ties away from zero. A NaN becomes the
// one that the GPU's conversions give.
DEVICE unsigned short to_bf16(float f) {
	unsigned u = __float_as_uint(f);
	if (f != f)
		return 0x7fff;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
DEVICE unsigned short to_fp16(float f) {
	unsigned u = __float_as_uint(f), sign = u >> 16 & 0x8000, m = u & 0x7fffffff;
	if (f != f)
		return 0x7fff;
	if (m >= 0x477ff000) // halfway from the largest number to 2^16, and above
		return sign | 0x7c00;
	if (m < 0x38800000) // below 2^-14: units of 2^-24, which adding 2^-1 rounds to
		return sign | (__float_as_uint(__uint_as_float(m) + 0.5f) - 0x3f000000);
	m -= 112 << 23; // the exponent's offset is 15 and not 127
	return sign | (m + 0xfff + (m >> 13 & 1)) >> 13;
}
DEVICE unsigned pair_bf16(float low, float high) { return to_bf16(low) | (unsigned)to_bf16(high) << 16; }
DEVICE unsigned pair_fp16(float low, float high) { return to_fp16(low) | (unsigned)to_fp16(high) << 16; }
DEVICE float from_fp16(unsigned short h) {
	unsigned sign = (h & 0x8000u) << 16, m = h & 0x7fff;
	if (m >= 0x7c00)
		return __uint_as_float(sign | 0x7f800000 | (m & 0x3ff) << 13);
	if (m < 0x400)
		return __uint_as_float(sign | __float_as_uint(m * 0x1p-24f));
	return __uint_as_float(sign | ((m << 13) + (112 << 23)));
}
DEVICE unsigned to_tf32(float f) {
	if (f != f)
		return 0x7fffffff;
	if (f - f != 0) // infinite
		return __float_as_uint(f);
	return (__float_as_uint(f) + 0x1000) & ~0x1fffu;
}

// Shuffles: the value of another lane of the warp.
template <class T> static inline T emulated_shuffle(T v, int lane) {
	auto slots = emulated_driver->meet(emulator::shuffle_meeting, &v, sizeof v);
	memcpy(&v, slots[lane], sizeof v);
	return v;
}
DEVICE int emulated_lane() {
	return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % emulator::lanes;
}
template <class T> static inline T shuffle(T v, int lane) { return emulated_shuffle(v, lane & 31); }
template <class T> static inline T shuffle_xor(T v, int other) { return emulated_shuffle(v, emulated_lane() ^ other); }

DEVICE unsigned lanes_with(int v) {
	auto slots = emulated_driver->meet(emulator::shuffle_meeting, &v, sizeof v);
	unsigned set = 0;
	for (int i = 0; i < emulator::lanes; i++) {
		memcpy(&v, slots[i], sizeof v);
		set |= (unsigned)(v != 0) << i;
	}
	return set;
}
DEVICE int count_bits(unsigned set) { return __builtin_popcount(set); }
DEVICE int lowest_bit(unsigned set) { return __builtin_ctz(set); }

// Products of a warp. Lane l holds, with g = l/4 and t = l%4:
//   of D (16x8): rows g (elements 0, 1) and g+8 (2, 3), columns 2t and 2t+1;
//   of A of 16 bits (16x16): a[0] row g, a[1] row g+8, columns 2t and 2t+1 in the low and
//   high half; a[2], a[3] the same, 8 columns on;
//   of B of 16 bits (16x8): column g, b[0] rows 2t and 2t+1, b[1] 8 rows on;
//   of A of TF32 (16x8): a[0] row g, a[1] row g+8, column t; a[2], a[3] the same, 4 columns on;
//   of B of TF32 (8x8): column g, b[0] row t, b[1] row t+4.
// (PTX ISA, "Matrix fragments for mma.m16n8k16" and "for mma.m16n8k8".) The sum is exact
// enough to be rounded once; tensor cores round a little more often.
struct emulated_fragments {
	unsigned a[4], b[2];
};
template <class Number> static inline void emulated_mma16(float d[4], const unsigned a[4], const unsigned b[2], Number number) {
	emulated_fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
	auto slots = emulated_driver->meet(emulator::mma_meeting, &mine, sizeof mine);
	int g = emulated_lane() / 4, t = emulated_lane() % 4;
	for (int e = 0; e < 4; e++) {
		int upper = e / 2, col = 2 * t + e % 2;
		double sum = d[e];
		for (int k = 0; k < 16; k++) {
			auto x = (const emulated_fragments *)slots[4 * g + k % 8 / 2], y = (const emulated_fragments *)slots[4 * col + k % 8 / 2];
			int half = k % 2 * 16;
			sum += number(x->a[upper + k / 8 * 2] >> half & 0xffff) * number(y->b[k / 8] >> half & 0xffff);
		}
		d[e] = sum;
	}
}
DEVICE void mma_bf16(float d[4], const unsigned a[4], const unsigned b[2]) {
	emulated_mma16(d, a, b, [](unsigned h) { return (double)__uint_as_float(h << 16); });
}
DEVICE void mma_fp16(float d[4], const unsigned a[4], const unsigned b[2]) {
	emulated_mma16(d, a, b, [](unsigned h) { return (double)from_fp16(h); });
}
DEVICE void mma_tf32(float d[4], const unsigned a[4], const unsigned b[2]) {
	emulated_fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
	auto slots = emulated_driver->meet(emulator::mma_meeting, &mine, sizeof mine);
	auto number = [](unsigned v) { return (double)__uint_as_float(v & ~0x1fffu); };
	int g = emulated_lane() / 4, t = emulated_lane() % 4;
	for (int e = 0; e < 4; e++) {
		int upper = e / 2, col = 2 * t + e % 2;
		double sum = d[e];
		for (int k = 0; k < 8; k++) {
			auto x = (const emulated_fragments *)slots[4 * g + k % 4], y = (const emulated_fragments *)slots[4 * col + k % 4];
			sum += number(x->a[upper + k / 4 * 2]) * number(y->b[k / 4]);
		}
		d[e] = sum;
	}
}

DEVICE int dot_bytes(int x, int y, int sum) {
	for (int shift = 0; shift < 32; shift += 8)
		sum += (signed char)(x >> shift) * (signed char)(y >> shift);
	return sum;
}

// CUDA's functions and types that C++ has not.
DEVICE float rsqrtf(float x) { return 1 / sqrtf(x); }
DEVICE double rsqrt(double x) { return 1 / sqrt(x); }
#define __expf expf
#define __logf logf
#define __powf powf
DEVICE float __fdividef(float x, float y) { return x / y; }
DEVICE float __fdiv_rn(float x, float y) { return x / y; }
DEVICE float __fadd_rn(float x, float y) { return x + y; }
DEVICE float __fsub_rn(float x, float y) { return x - y; }
DEVICE float __fmul_rn(float x, float y) { return x * y; }
DEVICE float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
DEVICE float __fsqrt_rn(float x) { return sqrtf(x); }
DEVICE float __frcp_rn(float x) { return 1 / x; }
DEVICE double __dadd_rn(double x, double y) { return x + y; }
DEVICE double __dmul_rn(double x, double y) { return x * y; }
DEVICE float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
DEVICE int __float2int_rn(float x) { return (int)lrintf(x); }
DEVICE int __float2int_rz(float x) { return (int)x; }
DEVICE int __popc(unsigned x) { return __builtin_popcount(x); }
DEVICE int __clz(int x) { return x ? __builtin_clz(x) : 32; }
DEVICE int __ffs(int x) { return __builtin_ffs(x); }
DEVICE unsigned __umulhi(unsigned x, unsigned y) { return (unsigned long long)x * y >> 32; }
DEVICE int __mulhi(int x, int y) { return (long long)x * y >> 32; }
DEVICE unsigned long long __umul64hi(unsigned long long x, unsigned long long y) { return (unsigned __int128)x * y >> 64; }
template <class T> static inline T __ldg(const T *p) { return *p; }
DEVICE float min(float x, float y) { return fminf(x, y); }
DEVICE float max(float x, float y) { return fmaxf(x, y); }
DEVICE double min(double x, double y) { return fmin(x, y); }
DEVICE double max(double x, double y) { return fmax(x, y); }
#define EMULATED_MIN_MAX(type)                                     \
	DEVICE type min(type x, type y) { return x < y ? x : y; }       \
	DEVICE type max(type x, type y) { return x < y ? y : x; }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#define EMULATED_VECTOR(type, name)                                                             \
	struct alignas(2 * sizeof(type)) name##2 {                                                   \
		type x, y;                                                                                \
	};                                                                                           \
	struct alignas(4 * sizeof(type)) name##4 {                                                   \
		type x, y, z, w;                                                                          \
	};                                                                                           \
	DEVICE name##2 make_##name##2(type x, type y) { return {x, y}; }                             \
	DEVICE name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTOR(float, float)
EMULATED_VECTOR(int, int)
EMULATED_VECTOR(unsigned, uint)
EMULATED_VECTOR(unsigned short, ushort)
DEVICE float4 load_l2(const float4 *p) { return *(const float4 *)p; }
DEVICE void prefetch_l2(const void *) {}
#endif

// What all kernels need. It is put before each file of kernels. For tests, EMULATED is
// defined, and emulated.h has come before this.
typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

// Threads in a block of every kernel, unless KERNEL_OF says otherwise.
#define BLOCK 256
#define WARP 32
#define ALL 0xffffffffu

#ifndef EMULATED
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#define DEVICE __device__ __forceinline__
#define DEVICE_CALLED __device__ __noinline__ // for large functions that are not worth their copies
#define KERNEL_OF(threads, name, args) extern "C" __global__ void __launch_bounds__(threads) name(const args a)
#define KERNEL(name, args) KERNEL_OF(BLOCK, name, args)

// SHARED names the block's dynamic shared memory, of the size given at the launch: the only
// kind of shared memory that kernels use.
#define SHARED(type, name)                                  \
	extern __shared__ __align__(16) unsigned char shared_[]; \
	type *name = (type *)shared_

// atomic_add and load_acquire are what a barrier of the whole grid is made of: atomic_add acquires
// and releases.
DEVICE u32 atomic_add(u32 *p, u32 v) {
	u32 old;
	asm volatile("atom.add.acq_rel.gpu.global.u32 %0,[%1],%2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
	return old;
}
DEVICE u32 load_acquire(const u32 *p) {
	u32 v;
	asm volatile("ld.acquire.gpu.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
	return v;
}
// load_l2 reads past the L1 cache, which may hold what another block has overwritten.
DEVICE float load_l2(const float *p) {
	float v;
	asm volatile("ld.relaxed.gpu.global.f32 %0,[%1];" : "=f"(v) : "l"(p) : "memory");
	return v;
}
DEVICE u32 load_l2(const u32 *p) {
	u32 v;
	asm volatile("ld.relaxed.gpu.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
	return v;
}
DEVICE float4 load_l2(const float4 *p) {
	float4 v;
	asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3},[%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
	return v;
}
// prefetch_l2 begins to move the 128 bytes at p to the L2 cache, where a later load finds them.
DEVICE void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" : : "l"(p)); }
DEVICE void pause() {}

// Rounding to 16 bits, to nearest, ties to even.
DEVICE u16 to_bf16(float f) {
	u16 r;
	asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(f));
	return r;
}
DEVICE u16 to_fp16(float f) {
	u16 r;
	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(f));
	return r;
}
// pair_bf16 and pair_fp16 round two numbers; the first is in the low half.
DEVICE u32 pair_bf16(float low, float high) {
	u32 r;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
}
DEVICE u32 pair_fp16(float low, float high) {
	u32 r;
	asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
}
DEVICE float from_fp16(u16 h) {
	float f;
	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
	return f;
}
// to_tf32 rounds to the 10 bits of mantissa of tensor cores' float32.
DEVICE u32 to_tf32(float f) {
	u32 r;
	asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(f));
	return r;
}

// One product of a warp, d += a·b, on tensor cores; PTX's documentation shows which lane
// holds which elements. 16 bits: 16x8x16, TF32: 16x8x8.
DEVICE void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
				 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_fp16(float d[4], const u32 a[4], const u32 b[2]) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
				 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_tf32(float d[4], const u32 a[4], const u32 b[2]) {
	asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
				 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// dot_bytes adds the four products of integers of 8 bits with sign.
DEVICE int dot_bytes(int x, int y, int sum) { return __dp4a(x, y, sum); }
DEVICE float shuffle_xor(float v, int lanes) { return __shfl_xor_sync(ALL, v, lanes); }
DEVICE double shuffle_xor(double v, int lanes) { return __shfl_xor_sync(ALL, v, lanes); }
DEVICE int shuffle_xor(int v, int lanes) { return __shfl_xor_sync(ALL, v, lanes); }
DEVICE float shuffle(float v, int lane) { return __shfl_sync(ALL, v, lane); }
DEVICE int shuffle(int v, int lane) { return __shfl_sync(ALL, v, lane); }
// lanes_with is the set of the warp's lanes, a bit each, whose v is not 0. (NVRTC takes a
// function of the name ballot for an instruction that is no more.)
DEVICE u32 lanes_with(int v) { return __ballot_sync(ALL, v); }
DEVICE int count_bits(u32 set) { return __popc(set); }
DEVICE int lowest_bit(u32 set) { return __ffs(set) - 1; }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
#endif

DEVICE float from_bf16(u16 h) { return __uint_as_float((u32)h << 16); }

// index and stride of a loop over n elements by all threads of a one-dimensional grid.
#define EACH(i, n) for (s64 i = (s64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (s64)gridDim.x * blockDim.x)

// sync_blocks waits until n blocks of a cooperative launch have come here, one of which is the
// first. count is a word of the device's memory that only such barriers change; it need not be
// cleared between launches, whose numbers of blocks may differ: each barrier adds 2^31 in all,
// so its end is that the highest bit has changed, and the others are 0 again.
DEVICE void sync_blocks(u32 *count, u32 n, bool first) {
	sync_block();
	if (threadIdx.x == 0) {
		u32 own = first ? 0x80000000u - (n - 1) : 1, before = atomic_add(count, own), now = before + own;
		while (((now ^ before) & 0x80000000u) == 0) { // who comes last need not look
			pause();
			now = load_acquire(count);
		}
	}
	sync_block();
}

// sync_grid is sync_blocks of the whole grid.
DEVICE void sync_grid(u32 *count) {
	sync_blocks(count, gridDim.x * gridDim.y * gridDim.z, blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0);
}

// Sums and maxima over a warp: every lane gets the same result, from the same tree.
template <class T> DEVICE T warp_sum(T v) {
	for (int o = WARP / 2; o > 0; o /= 2)
		v += shuffle_xor(v, o);
	return v;
}
template <class T> DEVICE T warp_max(T v) {
	for (int o = WARP / 2; o > 0; o /= 2) {
		T w = shuffle_xor(v, o);
		v = w > v ? w : v;
	}
	return v;
}

// block_sum adds one number of each thread of a one-dimensional block, in one order. tmp is
// WARP+1 numbers of shared memory, which may be used again after it.
template <class T> DEVICE T block_sum(T v, T *tmp) {
	v = warp_sum(v);
	if (threadIdx.x % WARP == 0)
		tmp[threadIdx.x / WARP] = v;
	sync_block();
	if (threadIdx.x == 0) {
		T s = 0;
		for (int i = 0; i < (int)(blockDim.x / WARP); i++)
			s += tmp[i];
		tmp[WARP] = s;
	}
	sync_block();
	v = tmp[WARP];
	sync_block();
	return v;
}

// block_max is block_sum for a maximum.
template <class T> DEVICE T block_max(T v, T *tmp) {
	v = warp_max(v);
	if (threadIdx.x % WARP == 0)
		tmp[threadIdx.x / WARP] = v;
	sync_block();
	v = tmp[0];
	for (int i = 1; i < (int)(blockDim.x / WARP); i++)
		v = tmp[i] > v ? tmp[i] : v;
	sync_block();
	return v;
}

// A team is the threads that share a row: a warp or, of a wide row, the block. Its rows are
// first, first + step, ...; lane i of it has the columns i, i + size, ... All threads of a team
// come to its sums and maxima, for which tmp is as for block_sum.
struct team {
	int lane, size;
	s64 first, step;
};
DEVICE team team_of(int wide) {
	if (wide)
		return {(int)threadIdx.x, (int)blockDim.x, blockIdx.x, gridDim.x};
	int warps = blockDim.x / WARP;
	return {(int)threadIdx.x % WARP, WARP, (s64)blockIdx.x * warps + threadIdx.x / WARP, (s64)gridDim.x * warps};
}
template <class T> DEVICE T team_sum(const team &t, T v, T *tmp) { return t.size == WARP ? warp_sum(v) : block_sum(v, tmp); }
template <class T> DEVICE T team_max(const team &t, T v, T *tmp) { return t.size == WARP ? warp_max(v) : block_max(v, tmp); }

// length is the length of row i of at most n; lens may be absent.
DEVICE int length(const int *lens, s64 i, int n) { return lens && lens[i] < n ? lens[i] : n; }

// Random numbers: those of internal/device/random.go, to the bit.
#define GOLDEN 0x9E3779B97F4A7C15ull

DEVICE u64 mix(u64 z) {
	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ z >> 27) * 0x94D049BB133111EBull;
	return z ^ z >> 31;
}

// masked is whether element i of the numbers after a state is dropped: threshold is p·2^32, rounded.
DEVICE bool masked(u64 state, s64 i, u64 threshold) {
	u64 z = mix(state + (u64)(i / 2 + 1) * GOLDEN);
	return (i % 2 ? z >> 32 : z & 0xffffffffull) < threshold;
}

// mask_state is the state of row b at time t of a scan: key is of its seed, step, node and stream.
DEVICE u64 mask_state(u64 key, int b, int t) { return mix(key + ((u64)b << 32 | (u32)t) * GOLDEN); }

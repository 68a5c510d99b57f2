// Products C (+)= A·B (+ bias) of every kind. A block of threads computes a tile of C, and
// the tiles of A and B for it pass through shared memory, DEPTH of k at a time: while one is
// multiplied, the next is on its way from memory. Operands are rounded on the way.
//
// The law of the sums: k is cut into blocks of a.block, a number that depends on K alone. The
// sum of a block starts from zero and takes k in ascending order, one by one for float32 and
// INT8, and 16 (of 16 bits) or 8 (TF32) at once on tensor cores. An element is its start (C, the
// bias, their sum or zero), to which the sums of blocks are added one after the other. So no bit
// depends on the tile, the grid, the other rows, or on whether blocks are computed apart.
//
// Macros: KIND, the tile TILE_M x TILE_N, and for the kinds of tensor cores WARPS_M, how many of
// the 8 warps are above each other, for others DEPTH and the elements EACH_M x EACH_N of a
// thread. KIND is a device.Kind or, for float32 with Options.TF32, 4.
#ifndef KIND
#define KIND 0
#define TILE_M 64
#define TILE_N 64
#define EACH_M 4
#define EACH_N 4
#define DEPTH 16
#endif
#define TENSOR (KIND == 1 || KIND == 2 || KIND == 4)
#define BYTES (KIND == 3)

#if BYTES
typedef int number; // of an operand: the integers of four k
typedef int4 number4;
typedef int2 number2;
#else
typedef float number;
typedef float4 number4;
typedef float2 number2;
#endif

struct gemm_args {
	const number *a, *b;
	const float *a_scale, *b_scale; // of INT8: of the rows of A and the columns of B
	const float *bias;
	float *c, *parts;            // parts, if splits > 1: [splits, batch, m, n], the sums of blocks
	s64 a_row, a_deep;           // strides of A by m and by k: one of them is 1
	s64 b_row, b_deep;           // of B by n and by k
	s64 ldc, a_batch, b_batch, c_batch;
	int m, n, k, batch;
	int block, splits;           // k of a block; 1, or how many blocks there are, each computed by itself
	int acc;
	int a_wide, b_wide, c_wide;  // whether four numbers may be read or written at once
};

// A unit is the k that a thread fetches of a row at once: 16 bytes of memory, or 8 of the
// shared memory of tensor cores.
#define UNIT (KIND == 4 ? 2 : 4)
#if TENSOR
#define DEPTH (8 * UNIT)
#define WARPS_N (8 / WARPS_M)
#define TILES_M (TILE_M / WARPS_M / 16) // products of 16x8 that a warp has
#define TILES_N (TILE_N / WARPS_N / 8)
#define TILE_WORDS ((TILE_M + TILE_N) * 16)
#define RUN 2 // adjacent elements of C that a thread has
#else
#define PITCH ((TILE_M + TILE_N + 3) / 8 * 8 + 4) // 4 more than a multiple of 8, against conflicts of banks
#define TILE_WORDS (DEPTH * PITCH)
#define RUN EACH_N
#endif
#define OWN (TILE_M * TILE_N / BLOCK) // elements of C of a thread
#define UNITS (DEPTH / UNIT)
#define PATCHES_A (TILE_M / 4 * UNITS)
#define PATCHES_B (TILE_N / 4 * UNITS)
#define PATCHES ((PATCHES_A + PATCHES_B + BLOCK - 1) / BLOCK)

// take reads n adjacent numbers.
template <int n> DEVICE void take(number *to, const number *from) {
	if constexpr (n % 4 == 0) {
		for (int i = 0; i < n; i += 4) {
			number4 v = *(const number4 *)(from + i);
			to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
		}
	} else if constexpr (n == 2) {
		number2 v = *(const number2 *)from;
		to[0] = v.x, to[1] = v.y;
	} else {
		for (int i = 0; i < n; i++)
			to[i] = from[i];
	}
}

// A patch is four rows of A, or columns of B, of one unit of k: what a thread fetches.
struct patch {
	const number *from;
	s64 row, deep; // strides
	int rows;      // how many of the four there are
	int k, at;     // where it is in the tile: A's rows come before B's columns
	int wide;
};

// patch_of returns patch i of a tile that begins at a row and column of C and at k0.
DEVICE patch patch_of(const gemm_args &a, int i, s64 batch, int row, int col, int k0) {
	bool of_a = i < PATCHES_A;
	patch p;
	p.row = of_a ? a.a_row : a.b_row;
	p.deep = of_a ? a.a_deep : a.b_deep;
	p.wide = of_a ? a.a_wide : a.b_wide;
	int quads = (of_a ? TILE_M : TILE_N) / 4, quad, unit;
	if (!of_a)
		i -= PATCHES_A;
	if (p.deep == 1)
		quad = i / UNITS, unit = i % UNITS;
	else
		quad = i % quads, unit = i / quads;
	p.k = unit * UNIT;
	p.at = quad * 4 + (of_a ? 0 : TILE_M);
	int first = quad * 4 + (of_a ? row : col);
	p.rows = (of_a ? a.m : a.n) - first;
	p.from = (of_a ? a.a + batch * a.a_batch : a.b + batch * a.b_batch) + first * p.row + (k0 + p.k) * p.deep;
	return p;
}

// fetch reads a patch, with zeros where left, the k that the tile has, or the matrix ends.
DEVICE void fetch(number v[4][UNIT], const patch &p, int left) {
	left -= p.k;
	if (p.deep == 1) {
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const number *from = p.from + i * p.row;
			if (p.wide && i < p.rows && UNIT <= left)
				take<UNIT>(v[i], from);
			else
#pragma unroll
				for (int j = 0; j < UNIT; j++)
					v[i][j] = i < p.rows && j < left ? from[j] : 0;
		}
		return;
	}
#pragma unroll
	for (int j = 0; j < UNIT; j++) {
		const number *from = p.from + j * p.deep;
		number w[4];
		if (p.wide && 4 <= p.rows && j < left)
			take<4>(w, from);
		else
#pragma unroll
			for (int i = 0; i < 4; i++)
				w[i] = i < p.rows && j < left ? from[i] : 0;
#pragma unroll
		for (int i = 0; i < 4; i++)
			v[i][j] = w[i];
	}
}

#if TENSOR
// In shared memory a row has its 8 units of 8 bytes, in an order of its own, so that neither a
// warp that reads fragments nor one that writes patches meets itself in few banks.
DEVICE uint2 *unit_of(number *tile, int row, int unit) {
	return (uint2 *)tile + row * 8 + (unit ^ (row >> 2 & 3 | (row >> 1 ^ row >> 4) << 2 & 4));
}

DEVICE void store(number *tile, const patch &p, number v[4][UNIT]) {
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const number *w = v[i];
#if KIND == 1
		uint2 u = {pair_bf16(w[0], w[1]), pair_bf16(w[2], w[3])};
#elif KIND == 2
		uint2 u = {pair_fp16(w[0], w[1]), pair_fp16(w[2], w[3])};
#else
		uint2 u = {to_tf32(w[0]), to_tf32(w[1])};
#endif
		*unit_of(tile, p.at + i, p.k / UNIT) = u;
	}
}

DEVICE int warp() { return threadIdx.x / WARP; }
DEVICE int group() { return threadIdx.x % WARP / 4; } // of lanes that share rows or columns
DEVICE int row_of(int e) { return warp() / WARPS_N * (TILE_M / WARPS_M) + e / 4 / TILES_N * 16 + group() + e % 4 / 2 * 8; }
DEVICE int col_of(int e) { return warp() % WARPS_N * (TILE_N / WARPS_N) + e / 4 % TILES_N * 8 + threadIdx.x % 4 * 2 + e % 2; }

// multiply adds the product of a tile. A lane's k of a product are those of one unit: other
// ones than the instruction numbers so, but the same of A and of B.
DEVICE void multiply(float *part, number *tile) {
	int lane = threadIdx.x % 4, above = warp() / WARPS_N * (TILE_M / WARPS_M), before = TILE_M + warp() % WARPS_N * (TILE_N / WARPS_N);
#pragma unroll
	for (int unit = 0; unit < 8; unit += 4) {
		u32 x[TILES_M][4], y[TILES_N][2];
#pragma unroll
		for (int i = 0; i < TILES_M; i++) {
			uint2 upper = *unit_of(tile, above + i * 16 + group(), unit + lane), lower = *unit_of(tile, above + i * 16 + 8 + group(), unit + lane);
			x[i][0] = upper.x, x[i][1] = lower.x, x[i][2] = upper.y, x[i][3] = lower.y;
		}
#pragma unroll
		for (int j = 0; j < TILES_N; j++) {
			uint2 u = *unit_of(tile, before + j * 8 + group(), unit + lane);
			y[j][0] = u.x, y[j][1] = u.y;
		}
#pragma unroll
		for (int i = 0; i < TILES_M; i++)
#pragma unroll
			for (int j = 0; j < TILES_N; j++) {
#if KIND == 1
				mma_bf16(part + (i * TILES_N + j) * 4, x[i], y[j]);
#elif KIND == 2
				mma_fp16(part + (i * TILES_N + j) * 4, x[i], y[j]);
#else
				mma_tf32(part + (i * TILES_N + j) * 4, x[i], y[j]);
#endif
			}
	}
}
#else
// In shared memory k is by k: TILE_M numbers of A, then TILE_N of B.
DEVICE void store(number *tile, const patch &p, number v[4][UNIT]) {
#pragma unroll
	for (int j = 0; j < UNIT; j++)
		*(number4 *)(tile + (p.k + j) * PITCH + p.at) = {v[0][j], v[1][j], v[2][j], v[3][j]};
}

DEVICE int row_of(int e) { return threadIdx.x / (TILE_N / EACH_N) * EACH_M + e / EACH_N; }
DEVICE int col_of(int e) { return threadIdx.x % (TILE_N / EACH_N) * EACH_N + e % EACH_N; }

DEVICE void multiply(number *part, number *tile) {
	const number *a = tile + row_of(0), *b = tile + TILE_M + col_of(0);
#pragma unroll
	for (int k = 0; k < DEPTH; k++) {
		number x[EACH_M], y[EACH_N];
		take<EACH_M>(x, a + k * PITCH);
		take<EACH_N>(y, b + k * PITCH);
#pragma unroll
		for (int i = 0; i < EACH_M; i++)
#pragma unroll
			for (int j = 0; j < EACH_N; j++)
#if BYTES
				part[i * EACH_N + j] = dot_bytes(x[i], y[j], part[i * EACH_N + j]);
#else
				part[i * EACH_N + j] = fmaf(x[i], y[j], part[i * EACH_N + j]);
#endif
	}
}
#endif

// start is what an element is before anything is added: C, the bias, their sum or zero.
DEVICE float start(const gemm_args &a, const float *c, int col) {
	float v = a.bias ? a.bias[col] : 0;
	return a.acc ? *c + v : v;
}

KERNEL(gemm, gemm_args) {
	SHARED(number, shared); // two tiles
	s64 left = blockIdx.x;
	int across = (a.n + TILE_N - 1) / TILE_N, down = (a.m + TILE_M - 1) / TILE_M;
	int col = left % across * TILE_N;
	left /= across;
	int row = left % down * TILE_M;
	left /= down;
	int split = left % a.splits;
	s64 batch = left / a.splits;
	int first = a.splits > 1 ? split * a.block : 0, end = a.splits > 1 ? min(a.k, first + a.block) : a.k;

	patch p[PATCHES];
	number v[PATCHES][4][UNIT];
#pragma unroll
	for (int i = 0; i < PATCHES; i++)
		p[i] = patch_of(a, threadIdx.x + i * BLOCK, batch, row, col, first);
	auto fetch_all = [&](int k) {
#pragma unroll
		for (int i = 0; i < PATCHES; i++)
			if ((int)threadIdx.x + i * BLOCK < PATCHES_A + PATCHES_B) {
				fetch(v[i], p[i], end - k);
				p[i].from += DEPTH * p[i].deep;
			}
	};
	auto store_all = [&](number *tile) {
#pragma unroll
		for (int i = 0; i < PATCHES; i++)
			if ((int)threadIdx.x + i * BLOCK < PATCHES_A + PATCHES_B)
				store(tile, p[i], v[i]);
	};

	float *c = a.splits > 1 ? a.parts + (split * a.batch + batch) * a.m * a.n : a.c + batch * a.c_batch;
	s64 ldc = a.splits > 1 ? a.n : a.ldc;
	number part[OWN]; // of this block of k
	float sum[OWN];
#pragma unroll
	for (int e = 0; e < OWN; e++) {
		int r = row + row_of(e), j = col + col_of(e);
		part[e] = 0;
		sum[e] = a.splits == 1 && r < a.m && j < a.n ? start(a, c + r * ldc + j, j) : 0;
	}

	fetch_all(first);
	store_all(shared);
	sync_block();
	int fold = a.block; // the k that are left of the block
	for (int k = first; k < end; k += DEPTH) {
		number *tile = shared + (k - first) / DEPTH % 2 * TILE_WORDS, *next = shared + TILE_WORDS - (tile - shared);
		if (k + DEPTH < end)
			fetch_all(k + DEPTH);
		multiply(part, tile);
		if (k + DEPTH < end)
			store_all(next);
#if !BYTES
		fold -= DEPTH;
		if (fold == 0 || k + DEPTH >= end) {
			fold = a.block;
#pragma unroll
			for (int e = 0; e < OWN; e++) {
				sum[e] = a.splits > 1 ? part[e] : sum[e] + part[e];
				part[e] = 0;
			}
		}
#endif
		sync_block();
	}

#pragma unroll
	for (int e = 0; e < OWN; e += RUN) {
		int r = row + row_of(e), j = col + col_of(e);
		if (r >= a.m)
			continue;
		float *to = c + r * ldc + j;
#if BYTES
#pragma unroll
		for (int i = 0; i < RUN; i++)
			if (j + i < a.n)
				sum[e + i] = __fadd_rn(sum[e + i], __fmul_rn((float)part[e + i], __fmul_rn(a.a_scale[r], a.b_scale[j + i])));
#endif
		if (a.c_wide && j + RUN <= a.n) {
			if constexpr (RUN % 4 == 0)
#pragma unroll
				for (int i = 0; i < RUN; i += 4)
					*(float4 *)(to + i) = {sum[e + i], sum[e + i + 1], sum[e + i + 2], sum[e + i + 3]};
			else if constexpr (RUN == 2)
				*(float2 *)to = {sum[e], sum[e + 1]};
			else
				*to = sum[e];
		} else {
#pragma unroll
			for (int i = 0; i < RUN; i++)
				if (j + i < a.n)
					to[i] = sum[e + i];
		}
	}
}

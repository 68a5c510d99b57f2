// The product of a step of a scan, out[row][column] = Σ_k operand[row][k]·weight[column][k], by a
// block for its columns and some rows. Each of the block's warps takes one part of k, which
// depends on the depth alone, and the parts are added in their order: so no bit of a row depends
// on other rows, nor on how columns and rows are divided. The operand was perhaps written by
// other blocks in this launch, and weights are kept in shared memory where they fit.
//
// Both are words of 32 bits: a number in float32 or TF32, or two of 16 bits. ROWS rows and COLS
// columns are a tile, of which a warp has its part of the sums in registers. A column is a gate
// of a unit, and all gates of a unit are in one tile.

#ifndef ROWS
#define ROWS 32
#endif
#ifndef COLS
#define COLS 32
#endif
#define WARPS (BLOCK / WARP)
#define CHUNK 32           // words of a row that a warp loads at once
#define PITCH (CHUNK + 4)  // distance of rows in shared memory, free of bank conflicts. Others are 4 more than a multiple of 32, too
#define PART (COLS + 4)    // distance of rows of sums

struct product {
	int k;                       // depth
	const float *at, *then;      // the operand's first joined numbers of a row, and the others
	s64 ld, then_ld;
	int joined;
	const float *w;              // the weights of column 0 of unit 0
	s64 gate, unit, deep;        // distances of gates, units and k in it
	int gates, first, units;     // columns of a unit; the block's units
	int slice;                   // where they are kept in shared memory, in words; -1: they are not
	int held;                    // a warp's part of the operand's rows is held for all tiles; 0: it is loaded for each
	int tiles, x_at;             // tiles whose sums are added up at once; where operands begin in work, in words
};

template <int KIND> DEVICE constexpr int numbers() { return KIND == BF16 || KIND == FP16 ? 2 : 1; } // in a word
DEVICE constexpr int up(int n, int to) { return (n + to - 1) / to * to; }
template <int KIND> DEVICE int words_of(int k) { return up((k + numbers<KIND>() - 1) / numbers<KIND>(), 8); }
DEVICE int kept_pitch(int words) { return up(words, 32) + 4; }

// units_of is the units of a tile, and tiles_of the tiles of a block's columns.
DEVICE int units_of(const product &p) { return COLS / p.gates; }
DEVICE int tiles_of(const product &p) { return (p.units + units_of(p) - 1) / units_of(p); }

template <int KIND> DEVICE u32 word(float lower, float upper) {
	if constexpr (KIND == BF16)
		return to_bf16(lower) | (u32)to_bf16(upper) << 16;
	if constexpr (KIND == FP16)
		return to_fp16(lower) | (u32)to_fp16(upper) << 16;
	if constexpr (KIND == TF32)
		return to_tf32(lower);
	return __float_as_uint(lower);
}

// quad is the numbers of four words of a row.
template <int KIND> struct quad {
	float4 v[numbers<KIND>()];
};
template <int KIND> DEVICE void put_quad(u32 *to, const quad<KIND> &q) {
	uint4 words;
	if constexpr (numbers<KIND>() == 2)
		words = make_uint4(word<KIND>(q.v[0].x, q.v[0].y), word<KIND>(q.v[0].z, q.v[0].w), word<KIND>(q.v[1].x, q.v[1].y), word<KIND>(q.v[1].z, q.v[1].w));
	else
		words = make_uint4(word<KIND>(q.v[0].x, 0), word<KIND>(q.v[0].y, 0), word<KIND>(q.v[0].z, 0), word<KIND>(q.v[0].w, 0));
	*(uint4 *)to = words;
}

// operand returns four numbers of a row, from k on; past the end they are 0. With whole, they
// are neighbours on a boundary of 16 bytes.
DEVICE float operand(const product &p, s64 row, int k) {
	if (k >= p.k)
		return 0;
	return load_l2(k < p.joined ? p.at + row * p.ld + k : p.then + row * p.then_ld + (k - p.joined));
}
DEVICE float4 operands(const product &p, bool whole, s64 row, int k) {
	if (whole)
		return k < p.k ? load_l2((const float4 *)(k < p.joined ? p.at + row * p.ld + k : p.then + row * p.then_ld + (k - p.joined))) : make_float4(0, 0, 0, 0);
	return make_float4(operand(p, row, k), operand(p, row, k + 1), operand(p, row, k + 2), operand(p, row, k + 3));
}
DEVICE bool is_whole(const product &p) { return (p.k | p.joined | (int)p.ld | (int)p.then_ld) % 4 == 0; }

// weights puts words [from, from+n) of a tile's columns at to, by a block or a warp: thread i of
// so many. The words of columns that there are not, and past the depth, are 0.
template <int KIND> DEVICE void weights(const product &p, int tile, int from, int n, u32 *to, int pitch, int i, int threads) {
	int quads = n / 4, per = units_of(p);
	for (; i < COLS * quads; i += threads) {
		int column = p.deep == 1 ? i / quads : i % COLS, at = 4 * (p.deep == 1 ? i % quads : i / COLS); // neighbours in memory
		int gate = column / per, unit = tile * per + column % per;
		bool there = gate < p.gates && unit < p.units;
		const float *w = p.w + gate * p.gate + (s64)(p.first + unit) * p.unit;
		quad<KIND> q;
		for (int j = 0; j < numbers<KIND>(); j++) {
			int k = (from + at) * numbers<KIND>() + 4 * j;
			auto get = [&](int k) { return there && k < p.k ? w[k * p.deep] : 0.0f; };
			q.v[j] = make_float4(get(k), get(k + 1), get(k + 2), get(k + 3));
		}
		put_quad<KIND>(to + column * pitch + at, q);
	}
}
// keep_weights puts the block's weights into shared memory, if they are to be there.
template <int KIND> DEVICE void keep_weights(const product &p, u32 *shared) {
	if (p.slice < 0)
		return;
	int words = words_of<KIND>(p.k), pitch = kept_pitch(words);
	for (int tile = 0; tile < tiles_of(p); tile++)
		weights<KIND>(p, tile, 0, words, shared + p.slice + tile * COLS * pitch, pitch, threadIdx.x, blockDim.x);
}

// add adds to a warp's sums the products of n words of the rows at x and the columns at y.
// What a lane holds: with float32, rows lane/4 + 8i and columns lane%4 + 4j; else what mma says.
const int lane_sums = ROWS * COLS / WARP;
template <int KIND> DEVICE void add(float *sums, const u32 *x, int x_pitch, const u32 *y, int pitch, int n) {
	int lane = threadIdx.x % WARP;
	if constexpr (KIND == F32) {
		const int rows = ROWS / 8, cols = COLS / 4;
		x += lane / 4 * x_pitch, y += lane % 4 * pitch;
		for (int k = 0; k < n; k += 4) {
			float4 v[rows], w[cols];
#pragma unroll
			for (int i = 0; i < rows; i++)
				v[i] = *(const float4 *)(x + 8 * i * x_pitch + k);
#pragma unroll
			for (int j = 0; j < cols; j++)
				w[j] = *(const float4 *)(y + 4 * j * pitch + k);
#pragma unroll
			for (int i = 0; i < rows; i++)
#pragma unroll
				for (int j = 0; j < cols; j++) {
					float &s = sums[i * cols + j];
					s = fmaf(v[i].w, w[j].w, fmaf(v[i].z, w[j].z, fmaf(v[i].y, w[j].y, fmaf(v[i].x, w[j].x, s))));
				}
		}
	} else {
		const int rows = ROWS / 16, cols = COLS / 8;
		x += lane / 4 * x_pitch + lane % 4, y += lane / 4 * pitch + lane % 4;
		for (int k = 0; k < n; k += 8) {
			u32 v[rows > 0 ? rows : 1][4], w[cols][2];
#pragma unroll
			for (int i = 0; i < rows; i++)
#pragma unroll
				for (int e = 0; e < 4; e++)
					v[i][e] = x[(16 * i + e % 2 * 8) * x_pitch + k + e / 2 * 4];
#pragma unroll
			for (int j = 0; j < cols; j++)
				w[j][0] = y[8 * j * pitch + k], w[j][1] = y[8 * j * pitch + k + 4];
#pragma unroll
			for (int i = 0; i < rows; i++)
#pragma unroll
				for (int j = 0; j < cols; j++) {
					float *s = sums + (i * cols + j) * 4;
					if constexpr (KIND == BF16)
						mma_bf16(s, v[i], w[j]);
					else if constexpr (KIND == FP16)
						mma_fp16(s, v[i], w[j]);
					else
						mma_tf32(s, v[i], w[j]);
				}
		}
	}
}
// put_sums stores a warp's sums as rows of columns.
template <int KIND> DEVICE void put_sums(const float *sums, float *to) {
	int lane = threadIdx.x % WARP;
#pragma unroll
	for (int i = 0; i < lane_sums; i++) {
		int row, col;
		if constexpr (KIND == F32)
			row = lane / 4 + 8 * (i / (COLS / 4)), col = lane % 4 + 4 * (i % (COLS / 4));
		else
			row = lane / 4 + 16 * (i / (COLS / 2)) + i % 4 / 2 * 8, col = 2 * (lane % 4) + 8 * (i / 4 % (COLS / 8)) + i % 2;
		to[row * PART + col] = sums[i];
	}
}

// sums is the products of one unit: one of each gate.
struct sums {
	const float *at;
	int gate; // distance of gates
	float operator()(int g) const {
		float sum = at[g * gate];
		for (int w = 1; w < WARPS; w++)
			sum += at[w * ROWS * PART + g * gate];
		return sum;
	}
};

// multiply computes the product for rows [r0,r1) of the operand and calls each(row, unit, sums) for
// all of them and the block's units, by one thread each. It begins when the whole block
// is there, and at its end, too. work is shared memory: of the warps' sums of p.tiles tiles, then
// of the weights that they load, if weights are not kept, and at p.x_at of operands.
template <int KIND, class F> DEVICE void multiply(const product &p, int r0, int r1, u32 *shared, u32 *work, F each) {
	const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, quads = CHUNK / 4, steps = ROWS * quads / WARP;
	const int tile_sums = WARPS * ROWS * PART;
	int words = words_of<KIND>(p.k), part = up((words + WARPS - 1) / WARPS, 8), from = min(warp * part, words), to = min(from + part, words);
	int pitch = p.slice < 0 ? PITCH : kept_pitch(words), x_pitch = p.held ? kept_pitch(part) : PITCH, per = units_of(p), tiles = tiles_of(p);
	bool whole = is_whole(p);
	float *parts = (float *)work;
	u32 *x = work + p.x_at + warp * ROWS * x_pitch, *y = work + p.tiles * tile_sums + warp * COLS * PITCH;
	for (int row = r0; row < r1; row += ROWS) {
		for (int first = 0; first < tiles; first += p.tiles) {
#pragma unroll 1
			for (int tile = first; tile < min(first + p.tiles, tiles); tile++) {
				float mine[lane_sums];
#pragma unroll
				for (int i = 0; i < lane_sums; i++)
					mine[i] = 0;
				bool fresh = !p.held || tile == 0;
				quad<KIND> next[steps]; // what comes is on its way while this is multiplied
				auto load = [&](int at) {
#pragma unroll
					for (int i = 0; i < steps; i++) {
						int r = row + lane / quads + i * (WARP / quads), w = at + lane % quads * 4;
#pragma unroll
						for (int j = 0; j < numbers<KIND>(); j++)
							next[i].v[j] = r < r1 && w < to ? operands(p, whole, r, w * numbers<KIND>() + 4 * j) : make_float4(0, 0, 0, 0);
					}
				};
				if (fresh)
					load(from);
#pragma unroll 1
				for (int at = from; at < to; at += CHUNK) {
					int n = min(CHUNK, to - at);
					u32 *now = p.held ? x + at - from : x;
					sync_warp();
					if (fresh)
#pragma unroll
						for (int i = 0; i < steps; i++)
							put_quad<KIND>(now + (lane / quads + i * (WARP / quads)) * x_pitch + lane % quads * 4, next[i]);
					if (p.slice < 0)
						weights<KIND>(p, tile, at, n, y, PITCH, lane, WARP);
					sync_warp();
					if (fresh)
						load(at + CHUNK);
					add<KIND>(mine, now, x_pitch, p.slice < 0 ? y : shared + p.slice + tile * COLS * pitch + at, pitch, n);
				}
				put_sums<KIND>(mine, parts + (tile - first) * tile_sums + warp * ROWS * PART);
			}
			sync_block();
			int units = min(per * p.tiles, p.units - first * per), rows = min(ROWS, r1 - row);
			for (int i = threadIdx.x; i < rows * units; i += blockDim.x) {
				int r = i / units, u = i % units;
				each(row + r, p.first + first * per + u, sums{parts + u / per * tile_sums + r * PART + u % per, per});
			}
			sync_block();
		}
	}
}

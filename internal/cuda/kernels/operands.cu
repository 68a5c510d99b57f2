// What products need beside gemm.cu: operands in other forms, and sums of their parts.

struct gemm_sum_args {
	const float *parts, *bias; // [splits, batch, m, n]
	float *c;
	s64 ldc, c_batch;
	int m, n, batch, splits, acc;
};

// gemm_sum adds the sums of blocks of k to the start, one after the other.
KERNEL(gemm_sum, gemm_sum_args) {
	s64 size = (s64)a.batch * a.m * a.n;
	EACH(i, size) {
		int col = i % a.n;
		float *c = a.c + i / a.n / a.m * a.c_batch + i / a.n % a.m * a.ldc + col, sum = a.bias ? a.bias[col] : 0;
		if (a.acc)
			sum = *c + sum;
		for (int s = 0; s < a.splits; s++)
			sum += a.parts[s * size + i];
		*c = sum;
	}
}

// bytes_of_rows rounds rows of x to integers of 8 bits times a scale, a warp a row, as
// simd.Bytes does those of A and, with weights, the columns of B. A row that holds a NaN or an
// infinity has the scale NaN.
struct bytes_args {
	const float *x;
	u32 *bytes; // [rows, words]; the integers past k are 0
	float *scale;
	s64 row, deep; // strides of x
	int rows, k, words, weights;
};
KERNEL(bytes_of_rows, bytes_args) {
	team t = team_of(0);
	for (s64 r = t.first; r < a.rows; r += t.step) {
		const float *x = a.x + r * a.row;
		int greatest = 0;
		for (int k = t.lane; k < a.k; k += t.size)
			greatest = max(greatest, __float_as_int(x[k * a.deep]) & 0x7fffffff);
		greatest = warp_max(greatest);
		float top = __int_as_float(greatest), scale = 0, by = 0;
		if (greatest >= 0x7f800000)
			scale = NAN;
		else if (top >= 0x1p-100f) {
			scale = __fdiv_rn(top, 127);
			by = __fdiv_rn(127, top);
			if (a.weights)
				scale = __int_as_float((__float_as_int(scale) + 0xff) & ~0xff);
		}
		bool none = !(scale > 0);
		if (t.lane == 0)
			a.scale[r] = scale;
		for (int w = t.lane; w < a.words; w += t.size) {
			u32 word = 0;
			for (int i = 0; i < 4; i++) {
				int k = 4 * w + i;
				if (none || k >= a.k)
					continue;
				float v = x[k * a.deep];
				int q = a.weights ? (int)rint((double)v / (double)scale) : (int)rintf(__fmul_rn(v, by));
				word |= (u32)(q & 0xff) << 8 * i;
			}
			a.bytes[r * a.words + w] = word;
		}
	}
}

// halves_of rounds a batch of matrices to 16 bits, with rows ld apart, a multiple of 8.
struct halves_args {
	const float *x;
	u16 *to; // [batch, rows, ld]
	s64 x_row, x_batch;
	int batch, rows, cols, ld, fp16;
};
KERNEL(halves_of, halves_args) {
	EACH(i, (s64)a.batch * a.rows * (a.ld / 4)) {
		s64 row = i / (a.ld / 4);
		int col = i % (a.ld / 4) * 4;
		const float *x = a.x + row / a.rows * a.x_batch + row % a.rows * a.x_row + col;
		float v[4];
		for (int k = 0; k < 4; k++)
			v[k] = col + k < a.cols ? x[k] : 0;
		*(uint2 *)(a.to + row * a.ld + col) = a.fp16 ? make_uint2(pair_fp16(v[0], v[1]), pair_fp16(v[2], v[3]))
														 : make_uint2(pair_bf16(v[0], v[1]), pair_bf16(v[2], v[3]));
	}
}

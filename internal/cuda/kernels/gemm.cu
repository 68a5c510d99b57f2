// C (+)= A·B (+ bias), in float32, by one thread an element.
struct gemm_args {
	const float *a, *b, *bias;
	float *c;
	int m, n, k;
	s64 a_row, a_col, b_row, b_col, ldc;
	s64 a_batch, b_batch, c_batch;
	int batch, acc;
};
KERNEL(gemm_plain, gemm_args) {
	EACH(i, (s64)a.batch * a.m * a.n) {
		int col = i % a.n, row = i / a.n % a.m;
		s64 batch = i / a.n / a.m;
		const float *x = a.a + batch * a.a_batch + row * a.a_row, *y = a.b + batch * a.b_batch + col * a.b_col;
		float *c = a.c + batch * a.c_batch + row * a.ldc + col;
		float sum = a.acc ? *c : a.bias ? a.bias[col] : 0;
		if (a.acc && a.bias)
			sum += a.bias[col];
		for (int k = 0; k < a.k; k++)
			sum = fmaf(x[k * a.a_col], y[k * a.b_row], sum);
		*c = sum;
	}
}

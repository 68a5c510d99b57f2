// The negative log-likelihood of a linear-chain conditional random field. The forward pass is,
// with a[0] = Start + Scores[0],
//
//	a[t,j] = Scores[t,j] + log Σ_i e^(a[t-1,i] + Trans[i,j])
//
// The exponentials of the transitions are computed once and those of a once per step, so that
// each sum is a dot product. If a dot product is so small that terms may have underflowed, the
// sum is computed again from logarithms. Logarithms are relative to the largest of their step,
// so that long rows lose no precision.
struct crf_args {
	const float *scores, *trans, *start, *end; // [B,T,K], [K,K], [K] or absent, [K] or absent
	const int *lens, *tags;                    // [B] or absent, [B,T]
	float *value, *dscores, *dtrans, *dstart, *dend; // absent gradients are not computed
	// What one kernel leaves to the next:
	float *top;      // [K] the largest transition into each tag
	float *weight;   // [K,K] e^(Trans-top) from row to column
	float *weight_t; // [K,K] its transpose
	float *alpha;    // [B,T,K] the forward pass
	float *prob;     // [B,T,K] e^alpha
	float *dot;      // [B,T,K] the prob of the step before times weight
	float *lse;      // [B,T,K] the logarithm of the sum, before the scores are added
	float *ratio;    // [B,T,K] the tag's probability divided by dot; if dot is not used, minus the probability
	float *shared;   // [B,K+2,K] gradients of Trans, Start and End by rows
	double *part;    // [B] the row's part of the value, times the number of all steps
	int B, T, K;
	int staged; // whether weights fit into shared memory
	int grad;
};

// Below it, 60 terms that underflowed could change the 7th digit of a dot product.
#define CRF_TINY 1e-29f

DEVICE int crf_steps(const crf_args &a, int b) { return a.lens ? a.lens[b] : a.T; }

// crf_total is the number of steps of all rows, at least 1; tmp is as for block_sum.
DEVICE double crf_total(const crf_args &a, double *tmp) {
	double n = 0;
	for (int b = threadIdx.x; b < a.B; b += blockDim.x)
		n += crf_steps(a, b);
	n = block_sum(n, tmp);
	return fmax(n, 1.0);
}

// vector_max and vector_sum are computed by each warp for itself, all alike, of a vector in
// shared memory.
DEVICE float vector_max(const float *x, int n) {
	float top = -INFINITY;
	for (int i = threadIdx.x % WARP; i < n; i += WARP)
		top = fmaxf(top, x[i]);
	return warp_max(top);
}
DEVICE float vector_sum(const float *x, int n) {
	float sum = 0;
	for (int i = threadIdx.x % WARP; i < n; i += WARP)
		sum += x[i];
	return warp_sum(sum);
}

// crf_weigh: a thread for each tag.
KERNEL(crf_weigh, crf_args) {
	EACH(j, a.K) {
		float top = -INFINITY;
		for (int i = 0; i < a.K; i++)
			top = fmaxf(top, a.trans[(s64)i * a.K + j]);
		a.top[j] = top;
		for (int i = 0; i < a.K; i++) {
			// Those of a tag that all others are forbidden to precede are zero.
			float w = fabsf(top) == INFINITY ? 0 : expf(a.trans[(s64)i * a.K + j] - top);
			a.weight[(s64)i * a.K + j] = w;
			a.weight_t[(s64)j * a.K + i] = w;
		}
	}
}

// crf_product returns Σ_i x[i]·w[i,j]: four chains of every fourth i, which are then added.
DEVICE float crf_product(const float *x, const float *w, int K, int j) {
	float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
	int i = 0;
	for (w += j; i + 3 < K; i += 4, w += 4 * (s64)K) {
		s0 = fmaf(x[i], w[0], s0);
		s1 = fmaf(x[i + 1], w[K], s1);
		s2 = fmaf(x[i + 2], w[2 * (s64)K], s2);
		s3 = fmaf(x[i + 3], w[3 * (s64)K], s3);
	}
	for (; i < K; i++, w += K)
		s0 = fmaf(x[i], *w, s0);
	return (s0 + s1) + (s2 + s3);
}

// crf_stage returns the weights where they are read fastest. All threads have done with what
// was in shared before.
DEVICE const float *crf_stage(const crf_args &a, float *shared, const float *weight) {
	if (!a.staged)
		return weight;
	for (int i = threadIdx.x; i < a.K * a.K; i += blockDim.x)
		shared[i] = weight[i];
	sync_block();
	return shared;
}

// crf_rows: a block for each row, a thread for each tag, or for several. Loads from global memory
// for a thread's first tag are made before the step waits for other threads.
KERNEL_OF(1024, crf_rows, crf_args) {
	SHARED(double, room);
	double *tmp = room; // for block_sum
	float *raw = (float *)(tmp + WARP + 1), *alpha = raw + a.K, *prob = alpha + a.K, *weights = prob + a.K;
	int b = blockIdx.x, tid = threadIdx.x, threads = blockDim.x, K = a.K, n = crf_steps(a, b);
	float inv = 1 / (float)crf_total(a, tmp);
	s64 first = (s64)b * a.T * K; // of the row, in [B,T,K]
	float *shared = a.grad ? a.shared + (s64)b * (K + 2) * K : 0;
	if (a.dscores)
		for (s64 i = (s64)n * K + tid; i < (s64)a.T * K; i += threads)
			a.dscores[first + i] = 0;
	if (n == 0) {
		if (tid == 0)
			a.part[b] = 0;
		if (a.grad)
			for (int j = tid; j < 2 * K; j += threads)
				shared[(s64)K * K + j] = 0;
		return;
	}
	const float *scores = a.scores + first;
	const int *tags = a.tags + (s64)b * a.T;

	// The score of the true tags. A tag out of range makes the value NaN.
	double gold = 0;
	for (int t = tid; t < n; t += threads) {
		int y = tags[t], x = t > 0 ? tags[t - 1] : 0;
		if (y < 0 || y >= K || x < 0 || x >= K) {
			gold = NAN;
			break;
		}
		gold += scores[(s64)t * K + y];
		if (t > 0)
			gold += a.trans[(s64)x * K + y];
		if (t == 0 && a.start)
			gold += a.start[y];
		if (t == n - 1 && a.end)
			gold += a.end[y];
	}
	gold = block_sum(gold, tmp);

	const float *w = crf_stage(a, weights, a.weight);
	double total = 0;
	float top_own = tid < K ? a.top[tid] : 0, ahead = tid < K ? scores[tid] : 0;
	for (int t = 0; t < n; t++) {
		s64 at = first + (s64)t * K;
		float own = ahead;
		if (tid < K && t + 1 < n)
			ahead = a.scores[at + K + tid];
		for (int j = tid; j < K; j += threads) {
			float score = j == tid ? own : a.scores[at + j];
			if (t == 0) {
				raw[j] = a.start ? score + a.start[j] : score;
				continue;
			}
			float d = crf_product(prob, w, K, j), lse;
			if (d > CRF_TINY) {
				lse = (j == tid ? top_own : a.top[j]) + logf(d);
			} else {
				float top = -INFINITY, sum = 0;
				for (int i = 0; i < K; i++)
					top = fmaxf(top, alpha[i] + a.trans[(s64)i * K + j]);
				float base = top == -INFINITY ? 0 : top;
				for (int i = 0; i < K; i++)
					sum += expf(alpha[i] + a.trans[(s64)i * K + j] - base);
				lse = base + logf(sum); // -Inf, if all are, and NaN, if one is
			}
			raw[j] = lse + score;
			if (a.grad) {
				a.dot[at + j] = d;
				a.lse[at + j] = lse;
			}
		}
		sync_block();
		float top = vector_max(raw, K);
		total += top;
		for (int j = tid; j < K; j += threads) {
			float l = raw[j] - top, p = expf(l);
			alpha[j] = l;
			prob[j] = p;
			if (a.grad) {
				a.alpha[at + j] = l;
				a.prob[at + j] = p;
			}
		}
		sync_block();
	}

	// The probabilities of the last tag, in raw.
	for (int j = tid; j < K; j += threads)
		raw[j] = a.end ? alpha[j] + a.end[j] : alpha[j];
	sync_block();
	float top = vector_max(raw, K);
	for (int j = tid; j < K; j += threads)
		alpha[j] = expf(raw[j] - top);
	sync_block();
	float sum = vector_sum(alpha, K);
	if (tid == 0)
		a.part[b] = total + top + logf(sum) - gold;
	if (!a.grad)
		return;

	// From the last step to the first: gamma, the probabilities of the tags, and from those the
	// ratios by which pairs are weighed.
	float *gamma = raw, *ratio = alpha, *rare = prob;
	for (int j = tid; j < K; j += threads)
		gamma[j] = alpha[j];
	w = crf_stage(a, weights, a.weight_t);
	sync_block();
	for (int t = n - 1;; t--) {
		s64 at = first + (s64)t * K;
		float inverse = 1 / sum; // so that rounding errors do not add up over long rows
		int tag = tags[t];
		float dot_own = tid < K ? a.dot[at + tid] : 0;
		float prob_own = tid < K && t > 0 ? a.prob[at - K + tid] : 0, alpha_own = tid < K && t > 0 ? a.alpha[at - K + tid] : 0;
		for (int j = tid; j < K; j += threads) {
			float p = gamma[j] * inverse, g = p - (j == tag ? 1 : 0);
			if (a.dscores)
				a.dscores[at + j] = g * inv;
			if (t == n - 1)
				shared[(s64)(K + 1) * K + j] = g;
			if (t == 0) {
				shared[(s64)K * K + j] = g;
				continue;
			}
			float d = j == tid ? dot_own : a.dot[at + j];
			bool tiny = !(d > CRF_TINY) && p != 0;
			float r = tiny || p == 0 ? 0 : p / d;
			ratio[j] = r;
			rare[j] = tiny ? p : 0;
			a.ratio[at + j] = tiny ? -p : r;
		}
		if (t == 0)
			break;
		sync_block();
		bool any = !(vector_max(rare, K) <= 0);
		for (int i = tid; i < K; i += threads) {
			s64 from = at - K + i;
			float g = crf_product(ratio, w, K, i) * (i == tid ? prob_own : a.prob[from]);
			if (any) {
				float l = i == tid ? alpha_own : a.alpha[from];
				for (int j = 0; j < K; j++)
					if (rare[j] != 0)
						g += rare[j] * expf(l + a.trans[(s64)i * K + j] - a.lse[at + j]);
			}
			gamma[i] = g;
		}
		sync_block();
		sum = vector_sum(gamma, K);
	}
}

// crf_pairs: blocks [row, tile of pairs], a thread for each pair of tags from i to j: its expected
// transitions in the row, minus the true ones.
KERNEL(crf_pairs, crf_args) {
	int b = blockIdx.x, n = crf_steps(a, b), K = a.K;
	s64 pair = (s64)blockIdx.y * blockDim.x + threadIdx.x;
	if (pair >= (s64)K * K)
		return;
	int i = pair / K, j = pair % K;
	s64 at = (s64)b * a.T * K;
	const int *tags = a.tags + (s64)b * a.T;
	float trans = a.trans[pair], outer = 0, rare = 0;
	int seen = 0;
	for (int t = 1; t < n; t++) {
		float r = a.ratio[at + (s64)t * K + j];
		if (r >= 0)
			outer = fmaf(a.prob[at + (s64)(t - 1) * K + i], r, outer);
		else
			rare += -r * expf(a.alpha[at + (s64)(t - 1) * K + i] + trans - a.lse[at + (s64)t * K + j]);
		seen += tags[t - 1] == i && tags[t] == j;
	}
	a.shared[(s64)b * (K + 2) * K + pair] = fmaf(outer, a.weight[pair], rare) - seen;
}

// crf_gather adds what rows have, in their order. The first block adds the value.
KERNEL(crf_gather, crf_args) {
	SHARED(double, tmp);
	int K = a.K;
	double total = crf_total(a, tmp);
	if (blockIdx.x == 0) {
		double sum = 0;
		for (int b = threadIdx.x; b < a.B; b += blockDim.x)
			sum += a.part[b];
		sum = block_sum(sum, tmp);
		if (threadIdx.x == 0)
			*a.value = (float)(sum / total);
	}
	if (!a.grad)
		return;
	float inv = 1 / (float)total;
	s64 size = (s64)(K + 2) * K;
	EACH(i, size) {
		float sum = 0;
		for (int b = 0; b < a.B; b++)
			sum += a.shared[b * size + i];
		sum *= inv;
		float *to = i < (s64)K * K ? a.dtrans : i < (s64)(K + 1) * K ? a.dstart : a.dend;
		if (to)
			to[i < (s64)K * K ? i : i % K] = sum;
	}
}

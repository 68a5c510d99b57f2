// Layers between recurrent ones. Sums have an order that depends on the shape alone.
#define WARPS (BLOCK / WARP)
#define NAN32 __uint_as_float(0x7fc00000)
#define LOWEST (-__uint_as_float(0x7f800000))

// quotient is i / n, in 32 bits where they suffice, which is many times faster.
DEVICE s64 quotient(s64 i, s64 n) { return ((u64)(i | n) >> 32) == 0 ? (u32)i / (u32)n : i / n; }

// exceeds reports whether v replaces the maximum m that came before it: NaN is the largest.
DEVICE bool exceeds(float v, float m) { return v > m || (v != v && m == m); }

// sum_warps adds what the warps have for the column of a lane. tmp is [WARPS][WARP].
DEVICE float sum_warps(const float *tmp) {
	float sum = 0;
	for (int i = 0; i < WARPS; i++)
		sum += tmp[i * WARP + threadIdx.x % WARP];
	return sum;
}

// Layer normalisation.
struct norm_args {
	const float *x, *gamma, *beta;
	float *y, *mean, *rstd;
	const float *dy;
	float *dx, *parts; // [gridDim.y][2][cols]
	s64 rows, block;   // block: rows of a part
	int cols, wide, acc;
	float eps;
};
KERNEL(layer_norm, norm_args) {
	SHARED(float, tmp);
	team t = team_of(a.wide);
	for (s64 r = t.first; r < a.rows; r += t.step) {
		const float *x = a.x + r * a.cols;
		float *y = a.y + r * a.cols;
		float sum = 0, squares = 0;
#pragma unroll 4
		for (int j = t.lane; j < a.cols; j += t.size)
			sum += x[j];
		float mean = team_sum(t, sum, tmp) / a.cols;
#pragma unroll 4
		for (int j = t.lane; j < a.cols; j += t.size)
			squares = fmaf(x[j] - mean, x[j] - mean, squares); // of centred values: no cancellation
		float rstd = 1 / sqrtf(team_sum(t, squares, tmp) / a.cols + a.eps);
#pragma unroll 4
		for (int j = t.lane; j < a.cols; j += t.size) {
			float v = (x[j] - mean) * rstd;
			v = a.gamma ? v * a.gamma[j] : v;
			y[j] = a.beta ? v + a.beta[j] : v;
		}
		if (a.mean && t.lane == 0) {
			a.mean[r] = mean;
			a.rstd[r] = rstd;
		}
	}
}

// With xhat = (x - mean)·rstd and g = dy·gamma, dx = rstd·(g - mean(g) - xhat·mean(g·xhat)).
KERNEL(layer_norm_grad, norm_args) {
	SHARED(float, tmp);
	team t = team_of(a.wide);
	for (s64 r = t.first; r < a.rows; r += t.step) {
		const float *x = a.x + r * a.cols, *dy = a.dy + r * a.cols;
		float *dx = a.dx + r * a.cols;
		float mean = a.mean[r], rstd = a.rstd[r], m1 = 0, m2 = 0;
#pragma unroll 4
		for (int j = t.lane; j < a.cols; j += t.size) {
			float g = a.gamma ? dy[j] * a.gamma[j] : dy[j];
			m1 += g;
			m2 = fmaf(g, (x[j] - mean) * rstd, m2);
		}
		m1 = team_sum(t, m1, tmp) / a.cols;
		m2 = team_sum(t, m2, tmp) / a.cols;
#pragma unroll 4
		for (int j = t.lane; j < a.cols; j += t.size) {
			float g = a.gamma ? dy[j] * a.gamma[j] : dy[j];
			float v = rstd * fmaf(-m2, (x[j] - mean) * rstd, g - m1);
			dx[j] = a.acc ? dx[j] + v : v;
		}
	}
}

// layer_norm_parts sums dy·xhat and dy over the rows of part blockIdx.y: each warp takes each
// WARPS-th row, a lane a column.
KERNEL(layer_norm_parts, norm_args) {
	SHARED(float, tmp); // [2][WARPS][WARP]
	int warp = threadIdx.x / WARP, col = blockIdx.x * WARP + threadIdx.x % WARP;
	s64 lo = blockIdx.y * a.block, hi = lo + a.block < a.rows ? lo + a.block : a.rows;
	float gamma = 0, beta = 0;
	if (col < a.cols) {
#pragma unroll 4
		for (s64 r = lo + warp; r < hi; r += WARPS) {
			float dy = a.dy[r * a.cols + col];
			gamma = fmaf(dy, (a.x[r * a.cols + col] - a.mean[r]) * a.rstd[r], gamma);
			beta += dy;
		}
	}
	tmp[threadIdx.x] = gamma;
	tmp[BLOCK + threadIdx.x] = beta;
	sync_block();
	if (warp < 2 && col < a.cols)
		a.parts[((s64)blockIdx.y * 2 + warp) * a.cols + col] = sum_warps(tmp + warp * BLOCK);
}

// add_parts adds the rows of parts, [n][2][cols], in ascending order: the first half of each to
// first, the other to second, either of which may be absent.
struct add_parts_args {
	const float *parts;
	float *first, *second;
	int n, cols;
};
KERNEL(add_parts, add_parts_args) {
	EACH(i, 2 * (s64)a.cols) {
		float *to = i < a.cols ? a.first : a.second;
		if (!to)
			continue;
		to += i < a.cols ? i : i - a.cols;
		float sum = *to;
#pragma unroll 8
		for (int k = 0; k < a.n; k++)
			sum += a.parts[k * 2 * (s64)a.cols + i];
		*to = sum;
	}
}

// Softmax of rows.
struct softmax_args {
	const float *x, *dy;
	float *y, *dx;
	const int *lens;
	s64 rows;
	int cols, per, wide, log, acc; // per: rows that share a length
};
KERNEL(softmax, softmax_args) {
	SHARED(float, tmp);
	team t = team_of(a.wide);
	for (s64 r = t.first; r < a.rows; r += t.step) {
		int n = length(a.lens, quotient(r, a.per), a.cols);
		const float *x = a.x + r * a.cols;
		float *y = a.y + r * a.cols;
		float top = LOWEST, sum = 0; // NaN does not become top: its exponential is NaN again
#pragma unroll 4
		for (int j = t.lane; j < n; j += t.size)
			top = x[j] > top ? x[j] : top;
		top = team_max(t, top, tmp);
#pragma unroll 4
		for (int j = t.lane; j < n; j += t.size)
			sum += expf(x[j] - top);
		sum = team_sum(t, sum, tmp);
		float change = a.log ? logf(sum) : 1 / sum;
#pragma unroll 4
		for (int j = t.lane; j < n; j += t.size) {
			float v = x[j] - top; // first, so that large logits keep their digits
			y[j] = a.log ? v - change : expf(v) * change;
		}
		for (int j = n + t.lane; j < a.cols; j += t.size)
			y[j] = 0;
	}
}

// dx (+)= y·(dy - Σ y·dy), or with log dx (+)= dy - e^y·Σ dy.
KERNEL(softmax_grad, softmax_args) {
	SHARED(float, tmp);
	team t = team_of(a.wide);
	for (s64 r = t.first; r < a.rows; r += t.step) {
		int n = length(a.lens, quotient(r, a.per), a.cols);
		const float *y = a.y + r * a.cols, *dy = a.dy + r * a.cols;
		float *dx = a.dx + r * a.cols;
		float sum = 0;
#pragma unroll 4
		for (int j = t.lane; j < n; j += t.size)
			sum = a.log ? sum + dy[j] : fmaf(y[j], dy[j], sum);
		sum = team_sum(t, sum, tmp);
#pragma unroll 4
		for (int j = t.lane; j < n; j += t.size) {
			float g = a.log ? fmaf(-sum, expf(y[j]), dy[j]) : y[j] * (dy[j] - sum);
			dx[j] = a.acc ? dx[j] + g : g;
		}
		if (!a.acc)
			for (int j = n + t.lane; j < a.cols; j += t.size)
				dx[j] = 0;
	}
}

// Embedding. An id outside the table gives NaN, and no gradient.
struct embed_args {
	const float *table, *dy;
	const int *ids;
	float *y, *dtable;
	s64 n;
	int v, d, padding;
	int owners; // a power of 2: block x has the ids of which it is the remainder
	int strips; // of WARP columns, that a block has
};
KERNEL(embed, embed_args) {
	team t = team_of(0);
	for (s64 r = t.first; r < a.n; r += t.step) {
		int id = a.ids[r];
		bool known = id >= 0 && id < a.v;
		for (int j = t.lane; j < a.d; j += t.size)
			a.y[r * a.d + j] = known ? a.table[(s64)id * a.d + j] : NAN32;
	}
}

// What a block lists of its ids before it adds their rows, and how many ids it reads in a round.
#define LISTED 2048
#define LANE_IDS 4
#define ROUND (BLOCK * LANE_IDS)

// add_listed adds the rows of dy at the places in the list whose id is the given one, in its
// order, to column col of dtable. All lanes of a warp come here with the same id.
DEVICE void add_listed(const embed_args &a, s64 id, int col, const int *ids, const int *places, int listed) {
	int lane = threadIdx.x % WARP;
	bool inside = col < a.d, any = false;
	const float *dy = a.dy + (inside ? col : 0);
	float *to = a.dtable + id * a.d + (inside ? col : 0), sum = 0;
	for (int i = 0; i < listed; i += WARP) {
		u32 found = lanes_with(i + lane < listed && ids[i + lane] == id);
		if (found && !any) {
			any = true;
			sum = *to;
		}
		while (found) { // a few at a time, so that their loads do not wait for each other
			const int most = 8;
			float v[most];
			int n = 0;
#pragma unroll
			for (int k = 0; k < most; k++) {
				if (found) {
					v[k] = dy[(s64)places[i + lowest_bit(found)] * a.d];
					found &= found - 1;
					n++;
				}
			}
#pragma unroll
			for (int k = 0; k < most; k++)
				sum = k < n ? sum + v[k] : sum;
		}
	}
	if (any && inside)
		*to = sum;
}

// Each block reads all ids and lists those that are its own with their places, in ascending
// order. So each element of dtable is one chain of sums, by one thread and without a sort.
KERNEL(embed_grad, embed_args) {
	SHARED(int, ids); // [LISTED]
	int *places = ids + LISTED, *counts = places + LISTED; // [LISTED], [WARPS]
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, listed = 0;
	int groups = WARPS / a.strips, group = warp / a.strips; // of warps, that have ids of their own
	int col = (blockIdx.y * a.strips + warp % a.strips) * WARP + lane;
	for (s64 round = 0;; round += ROUND) {
		bool end = round >= a.n;
		if (end || listed > LISTED - ROUND) {
			if (group < groups && listed > 0)
				for (s64 id = blockIdx.x + (s64)group * a.owners; id < a.v; id += (s64)groups * a.owners)
					add_listed(a, id, col, ids, places, listed);
			listed = 0;
		}
		if (end)
			break;
		int id[LANE_IDS], count = 0;
		u32 own[LANE_IDS];
		s64 first = round + warp * WARP * LANE_IDS + lane;
#pragma unroll
		for (int i = 0; i < LANE_IDS; i++)
			id[i] = first + i * WARP < a.n ? a.ids[first + i * WARP] : -1;
#pragma unroll
		for (int i = 0; i < LANE_IDS; i++) {
			own[i] = lanes_with(id[i] >= 0 && id[i] < a.v && id[i] != a.padding && (id[i] & (a.owners - 1)) == (int)blockIdx.x);
			count += count_bits(own[i]);
		}
		if (lane == 0)
			counts[warp] = count;
		sync_block();
		int at = listed;
		for (int i = 0; i < WARPS; i++) {
			at += i < warp ? counts[i] : 0;
			listed += counts[i];
		}
#pragma unroll
		for (int i = 0; i < LANE_IDS; i++) {
			if (own[i] >> lane & 1) {
				int to = at + count_bits(own[i] & ((1u << lane) - 1));
				ids[to] = id[i];
				places[to] = first + i * WARP;
			}
			at += count_bits(own[i]);
		}
		sync_block();
	}
}

// Pooling of sequences. A block has WARP features of a row, of which a warp takes each WARPS-th step.
enum { LAST, MEAN, MAX };
struct pool_args {
	const float *x, *dy;
	float *y, *dx;
	const int *lens;
	int *arg;
	int kind, b, t, f, acc;
};
KERNEL(pool, pool_args) {
	SHARED(float, tmp); // [WARPS][WARP]
	int *steps = (int *)(tmp + BLOCK), warp = threadIdx.x / WARP; // likewise
	s64 strips = (a.f + WARP - 1) / WARP, row = blockIdx.x / strips;
	int j = blockIdx.x % strips * WARP + threadIdx.x % WARP, n = length(a.lens, row, a.t);
	const float *x = a.x + row * a.t * a.f + j;
	bool inside = j < a.f;
	float v = 0;
	int step = -1;
	if (inside && a.kind == LAST && n > 0)
		v = x[(s64)(n - 1) * a.f];
	if (inside && a.kind == MEAN) {
#pragma unroll 4
		for (int t = warp; t < n; t += WARPS)
			v += x[(s64)t * a.f];
	}
	if (inside && a.kind == MAX) {
#pragma unroll 4
		for (int t = warp; t < n; t += WARPS) {
			float w = x[(s64)t * a.f];
			if (step < 0 || exceeds(w, v)) {
				v = w;
				step = t;
			}
		}
	}
	tmp[threadIdx.x] = v;
	steps[threadIdx.x] = step;
	sync_block();
	if (warp > 0 || !inside)
		return;
	if (a.kind == MEAN)
		v = n > 0 ? sum_warps(tmp) / n : 0;
	if (a.kind == MAX) {
		for (int i = threadIdx.x + WARP; i < BLOCK; i += WARP) {
			float w = tmp[i];
			if (steps[i] >= 0 && (exceeds(w, v) || (steps[i] < step && !exceeds(v, w)))) {
				v = w;
				step = steps[i];
			}
		}
		if (a.arg)
			a.arg[row * a.f + j] = step;
	}
	a.y[row * a.f + j] = v;
}
KERNEL(pool_grad, pool_args) {
	EACH(i, (s64)a.b * a.t * a.f) {
		s64 line = quotient(i, a.f), row = quotient(line, a.t), at = row * a.f + i - line * a.f;
		int t = line - row * a.t, n = length(a.lens, row, a.t);
		float old = a.acc ? a.dx[i] : 0;
		bool used = a.kind == LAST ? t == n - 1 : a.kind == MEAN ? t < n : t == a.arg[at];
		if (used)
			old = a.kind == MEAN ? fmaf(1 / (float)n, a.dy[at], old) : old + a.dy[at];
		a.dx[i] = old;
	}
}

// Pooling of windows. An axis of which output i reads the inputs i·stride - before + j·dilation.
struct window {
	int in, out, kernel, stride, dilation, before;
};
struct window_args {
	const float *x, *dy;
	float *y, *dx;
	const int *lens;
	int *arg;
	int b, c;
	window h, w;
	int mean, count_pad, after_h, after_w, acc;
};

// reads is the inputs of an output: first, which may be padding, and the j in [lo,hi) of those
// that exist. all counts those that exist or are padding.
struct reads {
	int first, lo, hi, all;
};
DEVICE reads reads_of(const window &w, int in, int after, int i) {
	reads r = {i * w.stride - w.before, 0, 0, 0};
	if (r.first < 0)
		r.lo = (w.dilation - 1 - r.first) / w.dilation;
	if (r.first < in)
		r.hi = min(w.kernel, (in - 1 - r.first) / w.dilation + 1);
	r.lo = min(r.lo, r.hi);
	r.all = min(w.kernel, (in + after - 1 - r.first) / w.dilation + 1);
	return r;
}

// share is 1 / the number of elements of a mean.
DEVICE float share(const window_args &a, const reads &h, const reads &w) {
	return 1 / (float)(a.count_pad ? h.all * w.all : (h.hi - h.lo) * (w.hi - w.lo));
}
KERNEL(window_pool, window_args) {
	EACH(i, (s64)a.b * a.h.out * a.w.out * a.c) {
		s64 place = quotient(i, a.c), line = quotient(place, a.w.out), image = quotient(line, a.h.out);
		int c = i - place * a.c;
		reads h = reads_of(a.h, length(a.lens, image, a.h.in), a.after_h, line - image * a.h.out);
		reads w = reads_of(a.w, a.w.in, a.after_w, place - line * a.w.out);
		float v = 0;
		int best = -1;
		for (int j = h.lo; j < h.hi; j++) {
			for (int k = w.lo; k < w.hi; k++) {
				int from = (h.first + j * a.h.dilation) * a.w.in + w.first + k * a.w.dilation;
				float x = a.x[(image * a.h.in * a.w.in + from) * a.c + c];
				if (a.mean) {
					v += x;
				} else if (best < 0 || exceeds(x, v)) {
					v = x;
					best = from;
				}
			}
		}
		if (a.mean && h.lo < h.hi && w.lo < w.hi)
			v *= share(a, h, w);
		a.y[i] = v;
		if (a.arg)
			a.arg[i] = best;
	}
}

// Each element gathers from the windows that have read it, in ascending order.
KERNEL(window_pool_grad, window_args) {
	EACH(i, (s64)a.b * a.h.in * a.w.in * a.c) {
		s64 place = quotient(i, a.c), line = quotient(place, a.w.in), image = quotient(line, a.h.in);
		int c = i - place * a.c, y = line - image * a.h.in, x = place - line * a.w.in, n = length(a.lens, image, a.h.in);
		float sum = a.acc ? a.dx[i] : 0;
		for (int j = a.h.kernel - 1; j >= 0 && y < n; j--) {
			int h = y + a.h.before - j * a.h.dilation, row = h / a.h.stride;
			if (h < 0 || h % a.h.stride != 0 || row >= a.h.out)
				continue;
			for (int k = a.w.kernel - 1; k >= 0; k--) {
				int w = x + a.w.before - k * a.w.dilation, col = w / a.w.stride;
				if (w < 0 || w % a.w.stride != 0 || col >= a.w.out)
					continue;
				s64 at = ((image * a.h.out + row) * a.w.out + col) * a.c + c;
				if (a.mean)
					sum = fmaf(share(a, reads_of(a.h, n, a.after_h, row), reads_of(a.w, a.w.in, a.after_w, col)), a.dy[at], sum);
				else if (a.arg[at] == y * a.w.in + x)
					sum += a.dy[at];
			}
		}
		a.dx[i] = sum;
	}
}

// Additive attention: score[b,q,t] = Σ_u v[u]·tanh(query[b,q,u] + key[b,t,u] + cover[b,q,t]·w[u]).
struct additive_args {
	const float *query, *key, *v, *cover, *w, *dscore;
	const int *lens;
	float *score, *dquery, *dkey, *dcover;
	float *parts; // [b][2][u]: of dv and dw
	int b, q, t, u;
};

// A warp has a score, its lanes the u.
KERNEL(additive, additive_args) {
	team m = team_of(0);
	for (s64 i = m.first; i < (s64)a.b * a.q * a.t; i += m.step) {
		s64 bq = quotient(i, a.t), b = quotient(bq, a.q);
		int t = i - bq * a.t;
		float sum = 0;
		if (t < length(a.lens, b, a.t)) {
			const float *query = a.query + bq * a.u, *key = a.key + (b * a.t + t) * a.u;
			float c = a.cover ? a.cover[i] : 0;
#pragma unroll 4
			for (int u = m.lane; u < a.u; u += m.size) {
				float x = query[u] + key[u];
				sum = fmaf(a.v[u], tanhf(a.cover ? fmaf(c, a.w[u], x) : x), sum);
			}
			sum = warp_sum(sum);
		}
		if (m.lane == 0)
			a.score[i] = sum;
	}
}

// dcover[b,q,t] += dscore·Σ_u w[u]·slope[u], where slope = v·(1 - tanh²).
KERNEL(additive_cover_grad, additive_args) {
	team m = team_of(0);
	for (s64 i = m.first; i < (s64)a.b * a.q * a.t; i += m.step) {
		s64 bq = quotient(i, a.t), b = quotient(bq, a.q);
		int t = i - bq * a.t;
		if (t >= length(a.lens, b, a.t))
			continue;
		const float *query = a.query + bq * a.u, *key = a.key + (b * a.t + t) * a.u;
		float c = a.cover[i], sum = 0;
#pragma unroll 4
		for (int u = m.lane; u < a.u; u += m.size) {
			float h = tanhf(fmaf(c, a.w[u], query[u] + key[u]));
			sum = fmaf(a.w[u], fmaf(-h * h, a.v[u], a.v[u]), sum);
		}
		sum = warp_sum(sum);
		if (m.lane == 0)
			a.dcover[i] = fmaf(a.dscore[i], sum, a.dcover[i]);
	}
}

// A block has WARP of the u of a row b, of which a warp takes each WARPS-th step, for a few
// queries at a time. Each element of dkey is one chain of sums over the queries.
#define QUERIES 4
KERNEL(additive_grad, additive_args) {
	SHARED(float, tmp); // [QUERIES][WARPS][WARP]
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
	s64 strips = (a.u + WARP - 1) / WARP, b = blockIdx.x / strips;
	int u = blockIdx.x % strips * WARP + lane, n = length(a.lens, b, a.t);
	bool inside = u < a.u;
	float v = inside ? a.v[u] : 0, w = inside && a.cover ? a.w[u] : 0, dv = 0, dw = 0;
	for (int first = 0; first < a.q; first += QUERIES) {
		int queries = min(QUERIES, a.q - first);
		float query[QUERIES] = {}, dquery[QUERIES] = {};
#pragma unroll
		for (int k = 0; k < QUERIES; k++)
			if (inside && k < queries)
				query[k] = a.query[(b * a.q + first + k) * a.u + u];
		for (int t = warp; t < n; t += WARPS) {
			s64 at = (b * a.t + t) * a.u + u;
			float key = inside ? a.key[at] : 0, dkey = inside && a.dkey ? a.dkey[at] : 0;
#pragma unroll
			for (int k = 0; k < QUERIES; k++) {
				if (k < queries) {
					s64 score = (b * a.q + first + k) * a.t + t;
					float d = a.dscore[score], c = a.cover ? a.cover[score] : 0;
					float h = tanhf(a.cover ? fmaf(c, w, query[k] + key) : query[k] + key);
					float slope = fmaf(-h * h, v, v);
					dquery[k] = fmaf(d, slope, dquery[k]);
					dkey = fmaf(d, slope, dkey);
					dv = fmaf(d, h, dv);
					dw = fmaf(d * c, slope, dw);
				}
			}
			if (inside && a.dkey)
				a.dkey[at] = dkey;
		}
		if (!a.dquery)
			continue;
#pragma unroll
		for (int k = 0; k < QUERIES; k++)
			tmp[k * BLOCK + threadIdx.x] = dquery[k];
		sync_block();
		if (inside && warp < queries)
			a.dquery[(b * a.q + first + warp) * a.u + u] += sum_warps(tmp + warp * BLOCK);
		sync_block();
	}
	tmp[threadIdx.x] = dv;
	tmp[BLOCK + threadIdx.x] = dw;
	sync_block();
	if (inside && warp < 2)
		a.parts[(b * 2 + warp) * a.u + u] = sum_warps(tmp + warp * BLOCK);
}

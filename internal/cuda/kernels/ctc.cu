// Connectionist temporal classification. The lattice of a row has S = 2·labels+1 states: the
// labels with a blank before, between and after them. State s is a blank if s is even,
// otherwise label s/2. A path starts in state 0 or 1, advances by no or one state per step,
// or by two if that skips a blank between different labels, and ends in one of the last two.
// Sums over paths are logarithms in double precision; only the terms of one sum, relative to
// its largest, are computed with float's exponential.
struct ctc_args {
	const float *logits; // [B,T,V]
	float *value, *grad; // [1], [B,T,V] or absent
	const int *lens, *labels, *label_lens; // [B] or absent, [B,L], [B] or absent
	// What one kernel leaves to the next:
	double *norm;  // [B,T] log Σ e^logits
	double *total; // [B] the logarithm of the sum over all paths
	double *part;  // [B] the row's part of the value
	double *alpha; // [B,T,S] the sum over paths up to a step, that step included; S = 2L+1 for all rows
	double *beta;  // [B,T,S] and over those after it
	int *need;     // [B] the steps that the labels need
	int *links;    // [B,L] of labels of one class: 2·the next one (0: none), and 1 if there is none before
	int B, T, V, L;
	int blank, per_label;
};

// ctc_row is one row.
struct ctc_row {
	const float *x;
	const double *norm;
	const int *labels;
	int steps, count, states, V, blank;
};
DEVICE ctc_row ctc_row_of(const ctc_args &a, int b) {
	ctc_row r;
	r.x = a.logits + (s64)b * a.T * a.V;
	r.norm = a.norm + (s64)b * a.T;
	r.labels = a.labels + (s64)b * a.L;
	r.steps = a.lens ? a.lens[b] : a.T;
	r.count = a.label_lens ? a.label_lens[b] : a.L;
	r.states = 2 * r.count + 1;
	r.V = a.V;
	r.blank = a.blank;
	return r;
}
DEVICE int ctc_class(const ctc_row &r, int s) { return s % 2 ? r.labels[s / 2] : r.blank; }
DEVICE double ctc_scale(const ctc_args &a, const ctc_row &r) {
	double scale = 1.0 / a.B;
	return a.per_label ? scale / max(1, r.count) : scale;
}
// A path can be in states [ctc_lo,ctc_hi) at step t: those that can be reached from the
// beginning and from which the end can be reached.
DEVICE int ctc_lo(const ctc_row &r, int t) { return max(0, r.states - 2 * (r.steps - t)); }
DEVICE int ctc_hi(const ctc_row &r, int t) { return min(r.states, 2 * (t + 1)); }

// ctc_add returns log(e^p + e^q + e^r).
DEVICE double ctc_add(double p, double q, double r) {
	double top = fmax(fmax(p, q), r);
	if (top == -INFINITY)
		top = 0; // the sum is -Inf too
	return top + log((double)expf((float)(p - top)) + (double)expf((float)(q - top)) + (double)expf((float)(r - top)));
}

// ctc_norm: a warp for each step.
KERNEL(ctc_norm, ctc_args) {
	int lane = threadIdx.x % WARP;
	s64 step = (s64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
	if (step >= (s64)a.B * a.T)
		return;
	if (a.lens && step % a.T >= a.lens[step / a.T])
		return;
	const float *x = a.logits + step * a.V;
	float top = -INFINITY, sum = 0;
	for (int v = lane; v < a.V; v += WARP)
		top = fmaxf(top, x[v]);
	top = warp_max(top);
	for (int v = lane; v < a.V; v += WARP)
		sum += expf(x[v] - top);
	sum = warp_sum(sum);
	if (lane == 0)
		a.norm[step] = (double)top + log((double)sum);
}

// ctc_paths: blocks [row,0] compute alpha and the total, blocks [row,1] beta. A thread has one
// state, or several if there are more than threads. Two lines of shared memory hold the step
// before and the present one, each with two states of -Inf where a path cannot come from.
KERNEL_OF(1024, ctc_paths, ctc_args) {
	SHARED(double, line);
	int b = blockIdx.x, tid = threadIdx.x, threads = blockDim.x, back = blockIdx.y;
	ctc_row r = ctc_row_of(a, b);
	int pitch = 2 * a.L + 3;

	int need = 0;
	for (int i = tid; i < r.count; i += threads)
		need += i > 0 && r.labels[i] == r.labels[i - 1] ? 2 : 1;
	need = block_sum(need, (int *)line);
	if (!back && tid == 0) {
		a.need[b] = need;
		a.part[b] = 0;
	}
	if (need > r.steps || r.steps == 0) { // impossible, or only the empty path: neither counts
		if (!back && tid == 0)
			a.total[b] = 0;
		return;
	}
	if (back)
		for (int i = tid; i < r.count; i += threads) {
			int first = 1, next = 0;
			for (int j = 0; j < r.count && !next; j++)
				if (r.labels[j] == r.labels[i]) {
					if (j < i)
						first = 0;
					else if (j > i)
						next = j;
				}
			a.links[(s64)b * a.L + i] = 2 * next + first;
		}
	for (int s = tid; s < 2 * pitch; s += threads)
		line[s] = -INFINITY;
	sync_block();

	int cls = tid < r.states ? ctc_class(r, tid) : r.blank;
	double *keep = back ? a.beta : a.alpha;
	if (keep)
		keep += (s64)b * a.T * (2 * a.L + 1);
	float ahead = r.x[(s64)(back ? r.steps - 1 : 0) * r.V + cls]; // is loaded a step before it is needed
	for (int n = 0; n < r.steps; n++) {
		int t = back ? r.steps - 1 - n : n;
		const float *x = r.x + (s64)t * r.V;
		float own = ahead;
		if (n + 1 < r.steps)
			ahead = x[(back ? -r.V : r.V) + cls];
		double norm = r.norm[t];
		double *now = line + (n % 2) * pitch;
		const double *before = line + ((n + 1) % 2) * pitch;
		int lo = ctc_lo(r, t), hi = ctc_hi(r, t);
		for (int s = tid; s < r.states; s += threads) {
			double paths = -INFINITY;
			int mine = s == tid ? cls : ctc_class(r, s);
			double p = (double)(s == tid ? own : x[mine]) - norm;
			if (s < lo || s >= hi) {
			} else if (back) {
				// Line holds beta times the probability of the state's class, in states 0, 1, ...
				paths = 0; // span is the last two states at the last step
				if (n > 0) {
					bool jump = s % 2 && s + 2 < r.states && r.labels[s / 2 + 1] != mine;
					paths = ctc_add(before[s], before[s + 1], jump ? before[s + 2] : -INFINITY);
				}
				keep[(s64)t * (2 * a.L + 1) + s] = paths;
				paths += p;
			} else {
				// Line holds alpha, after two states of -Inf.
				if (n == 0) {
					paths = p;
				} else {
					bool jump = s % 2 && s > 1 && r.labels[s / 2 - 1] != mine;
					paths = ctc_add(before[s + 2], before[s + 1], jump ? before[s] : -INFINITY) + p;
				}
				if (keep)
					keep[(s64)t * (2 * a.L + 1) + s] = paths;
			}
			now[back ? s : s + 2] = paths;
		}
		sync_block();
	}
	if (!back && tid == 0) {
		const double *last = line + ((r.steps - 1) % 2) * pitch + r.states;
		double total = ctc_add(last[1], last[0], -INFINITY); // a row without labels has one state, after -Inf
		a.total[b] = total;
		a.part[b] = -total * ctc_scale(a, r);
	}
}

// ctc_value adds the rows' parts in one order, by one block.
KERNEL(ctc_value, ctc_args) {
	SHARED(double, tmp);
	double sum = 0;
	for (int b = threadIdx.x; b < a.B; b += blockDim.x)
		sum += a.part[b];
	sum = block_sum(sum, tmp);
	if (threadIdx.x == 0)
		*a.value = (float)sum;
}

// ctc_grad: a warp for each step. The gradient of a class is its softmax minus the share of the
// paths through the class in this step.
KERNEL(ctc_grad, ctc_args) {
	int lane = threadIdx.x % WARP;
	s64 step = (s64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
	if (step >= (s64)a.B * a.T)
		return;
	int b = step / a.T, t = step % a.T;
	ctc_row r = ctc_row_of(a, b);
	float *d = a.grad + step * a.V;
	if (t >= r.steps || a.need[b] > r.steps) {
		for (int v = lane; v < a.V; v += WARP)
			d[v] = 0;
		return;
	}
	const float *x = a.logits + step * a.V;
	double norm = a.norm[step], total = a.total[b];
	float scale = (float)ctc_scale(a, r);
	for (int v = lane; v < a.V; v += WARP)
		d[v] = expf((float)((double)x[v] - norm)) * scale;
	sync_warp();
	const double *alpha = a.alpha + step * (2 * a.L + 1), *beta = a.beta + step * (2 * a.L + 1);
	int lo = ctc_lo(r, t), hi = ctc_hi(r, t);
	float blank = 0;
	for (int s = (lo + 1) / 2 * 2 + 2 * lane; s < hi; s += 2 * WARP)
		blank += expf((float)(alpha[s] + beta[s] - total));
	blank = warp_sum(blank);
	if (lane == 0)
		d[r.blank] -= blank * scale;
	const int *links = a.links + (s64)b * a.L;
	for (int i = lane; i < r.count; i += WARP) {
		if (links[i] % 2 == 0)
			continue; // its class is that of an earlier label
		float share = 0;
		int j = i;
		do {
			int s = 2 * j + 1;
			if (s >= lo && s < hi)
				share += expf((float)(alpha[s] + beta[s] - total));
			j = links[j] / 2;
		} while (j);
		d[r.labels[i]] -= share * scale;
	}
}

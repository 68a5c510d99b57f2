// Losses. What is computed of an item is in float64 but for the softmax of cross-entropy, and so
// are sums over items, of which each block makes a part.
struct loss_args {
	const float *pred, *target, *weight, *class_weight, *quantiles;
	const int *classes;
	float *value, *d;
	double *weights, *sums; // the parts of the sum of weights and of that of losses
	s64 n;
	int v, kind, ignore, wide;
	int weight_parts, sum_parts; // without weight_parts each item's weight is 1
	float smoothing, param;
};
enum { MSE, MAE, HUBER, QUANTILE, GAUSSIAN, STUDENT_T, NEG_BINOMIAL, CROSS_ENTROPY, BCE };

// item_weight is the weight of item n without class weights; 0 for an ignored class.
DEVICE float item_weight(const loss_args &a, s64 n) {
	if (a.kind == CROSS_ENTROPY && a.classes[n] == a.ignore)
		return 0;
	return a.weight ? a.weight[n] : 1;
}

// A class outside [0,v) makes the value NaN.
KERNEL(loss_weights, loss_args) {
	SHARED(double, tmp);
	double sum = 0;
	EACH(n, a.n) {
		float w = item_weight(a, n);
		if (w != 0 && a.kind == CROSS_ENTROPY) {
			int c = a.classes[n];
			if (c < 0 || c >= a.v)
				w = __uint_as_float(0x7fc00000);
			else if (a.class_weight)
				w *= a.class_weight[c];
		}
		sum += w;
	}
	sum = block_sum(sum, tmp);
	if (threadIdx.x == 0)
		a.weights[blockIdx.x] = sum;
}

// total_weight is the mean's denominator, which each block sums by itself. weight_parts <= BLOCK.
DEVICE double total_weight(const loss_args &a, double *tmp) {
	if (a.weight_parts == 0)
		return a.n;
	return block_sum((int)threadIdx.x < a.weight_parts ? a.weights[threadIdx.x] : 0, tmp);
}

KERNEL(loss_value, loss_args) {
	SHARED(double, tmp);
	double total = total_weight(a, tmp), sum = 0;
	for (int i = threadIdx.x; i < a.sum_parts; i += BLOCK)
		sum += a.sums[i];
	sum = block_sum(sum, tmp);
	if (threadIdx.x == 0)
		*a.value = total == 0 ? 0 : sum / total;
}

DEVICE double softplus(double x) { return (x < 0 ? 0 : x) + log1p(exp(-fabs(x))); }
DEVICE double logistic(double x) {
	double e = exp(-fabs(x));
	return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

// positive makes a scale, mean or dispersion of a free output; its derivative is logistic.
DEVICE double positive(double x) { return softplus(x) + 1e-6; }

// digamma is the derivative of lgamma for x > 0, to about 1e-14: the recurrence
// psi(x) = psi(x+1) - 1/x up to 10, then the asymptotic series in 1/x² (Abramowitz and Stegun 6.3.18).
DEVICE double digamma(double x) {
	double shift = 0;
	for (; x < 10; x++)
		shift -= 1 / x;
	double u = 1 / (x * x);
	double series = u * (1. / 12 - u * (1. / 120 - u * (1. / 252 - u * (1. / 240 - u * (1. / 132 - u * (691. / 32760 - u / 12))))));
	return shift + log(x) - 1 / (2 * x) - series;
}

// Each loss returns its value for prediction p and target y, and the gradient in d. One whose
// derivative is 0 at p = y is NaN there if one of them is.
DEVICE double absolute(double p, double y, double *d) {
	double e = p - y;
	*d = e > 0 ? 1 : e < 0 ? -1 : e;
	return e < 0 ? -e : e;
}
DEVICE double huber(double p, double y, double delta, double *d) {
	double e = p - y, size = fabs(e);
	if (size > delta) {
		*d = e > 0 ? delta : -delta;
		return delta * (size - delta / 2);
	}
	*d = e;
	return e * e / 2;
}
DEVICE double pinball(double p, double y, double q, double *d) {
	double e = y - p;
	*d = e > 0 ? -q : e < 0 ? 1 - q : e;
	return e > 0 ? q * e : e < 0 ? (q - 1) * e : e;
}
DEVICE double bce(double x, double y, double *d) {
	*d = logistic(x) - y;
	return (x < 0 ? 0 : x) - x * y + log1p(exp(-fabs(x)));
}
DEVICE double gaussian(const float *p, double y, double *d) {
	double sigma = positive(p[1]), z = (y - p[0]) / sigma;
	d[0] = -z / sigma;
	d[1] = (1 - z * z) / sigma * logistic(p[1]);
	return log(sigma) + z * z / 2 + 0.91893853320467274178; // log(2π)/2
}
DEVICE double student_t(const float *p, double y, double *d) {
	double sigma = positive(p[1]), nu = 2 + softplus(p[2]), z = (y - p[0]) / sigma;
	double log_tail = log1p(z * z / nu), pull = (nu + 1) * z / (nu + z * z); // the derivative in z
	d[0] = -pull / sigma;
	d[1] = (1 - pull * z) / sigma * logistic(p[1]);
	d[2] = ((digamma(nu / 2) - digamma((nu + 1) / 2) + 1 / nu + log_tail) / 2 - pull * z / (2 * nu)) * logistic(p[2]);
	return lgamma(nu / 2) - lgamma((nu + 1) / 2) + log(nu * 3.14159265358979323846) / 2 + log(sigma) + (nu + 1) / 2 * log_tail;
}
DEVICE double neg_binomial(const float *p, double y, double *d) {
	double mu = positive(p[0]), alpha = positive(p[1]), r = 1 / alpha, am = alpha * mu, log_share = log1p(am);
	d[0] = (mu - y) / (mu * (1 + am)) * logistic(p[0]);
	d[1] = (digamma(y + r) - digamma(r) - log_share + (mu - y) / (r + mu)) * r * r * logistic(p[1]);
	return lgamma(r) + lgamma(y + 1) - lgamma(y + r) + r * log_share - y * (log(am) - log_share);
}

// Items of weight 0 are not read.
KERNEL(loss_items, loss_args) {
	SHARED(double, tmp);
	double total = total_weight(a, tmp), inv = 1 / total, sum = 0;
	EACH(n, a.n) {
		double w = item_weight(a, n), g = w * inv, l = 0, d[3] = {};
		const float *p = a.pred + n * a.v;
		float *to = a.d ? a.d + n * a.v : 0;
		if (w == 0 || total == 0) {
			for (int j = 0; to && j < a.v; j++)
				to[j] = 0;
			continue;
		}
		double y = a.target[n];
		switch (a.kind) {
		case MSE:
			d[0] = 2 * (p[0] - y);
			l = (p[0] - y) * (p[0] - y);
			break;
		case MAE:
			l = absolute(p[0], y, d);
			break;
		case HUBER:
			l = huber(p[0], y, a.param, d);
			break;
		case BCE:
			l = bce(p[0], y, d);
			break;
		case GAUSSIAN:
			l = gaussian(p, y, d);
			break;
		case STUDENT_T:
			l = student_t(p, y, d);
			break;
		case NEG_BINOMIAL:
			l = neg_binomial(p, y, d);
			break;
		case QUANTILE: // the mean over the quantiles
			for (int j = 0; j < a.v; j++) {
				l += pinball(p[j], y, a.quantiles[j], d) / a.v;
				if (to)
					to[j] = d[0] * g / a.v;
			}
			break;
		}
		sum += w * l;
		if (to && a.kind != QUANTILE) {
#pragma unroll
			for (int j = 0; j < 3; j++)
				if (j < a.v)
					to[j] = d[j] * g;
		}
	}
	sum = block_sum(sum, tmp);
	if (threadIdx.x == 0)
		a.sums[blockIdx.x] = sum;
}

// Of logits x and class c with weights w, ones if absent, and smoothing s, an item's loss is
//   (1-s)·w[c]·(-log p[c]) + s/V·Σ_j w[j]·(-log p[j]),
// with p the softmax of x.
KERNEL(loss_classes, loss_args) {
	SHARED(double, tmp);
	float *row = (float *)(tmp + WARP + 1);
	team t = team_of(a.wide);
	double total = total_weight(a, tmp), sum = 0;
	float each = a.smoothing / a.v;
	for (s64 n = t.first; n < a.n; n += t.step) {
		const float *x = a.pred + n * a.v;
		float *d = a.d ? a.d + n * a.v : 0, w = item_weight(a, n);
		if (w == 0 || total == 0) {
			for (int j = t.lane; d && j < a.v; j += t.size)
				d[j] = 0;
			continue;
		}
		int c = a.classes[n];
		c = c >= 0 && c < a.v ? c : 0; // total is NaN then
		float top = -__uint_as_float(0x7f800000), norm = 0, hit = 1 - a.smoothing, spread = 0, logits = 0;
#pragma unroll 4
		for (int j = t.lane; j < a.v; j += t.size)
			top = x[j] > top ? x[j] : top; // NaN does not become top: its exponential is NaN again
		top = team_max(t, top, row);
#pragma unroll 4
		for (int j = t.lane; j < a.v; j += t.size)
			norm += expf(x[j] - top);
		norm = team_sum(t, norm, row);
		if (a.class_weight)
			hit *= a.class_weight[c];
		if (each != 0) {
			for (int j = t.lane; j < a.v; j += t.size) {
				float cw = a.class_weight ? a.class_weight[j] : 1;
				spread += cw;
				logits = fmaf(cw, x[j], logits);
			}
			spread = team_sum(t, spread, row);
			logits = team_sum(t, logits, row);
		}
		if (t.lane == 0) {
			double log_norm = top + log((double)norm), l = hit * (log_norm - x[c]);
			if (each != 0)
				l += each * (log_norm * spread - logits);
			sum += w * l;
		}
		if (!d)
			continue;
		float g = w / total, scale = (double)g * (hit + each * spread) / norm;
#pragma unroll 4
		for (int j = t.lane; j < a.v; j += t.size) {
			float v = expf(x[j] - top) * scale;
			if (each != 0)
				v = fmaf(-g * each, a.class_weight ? a.class_weight[j] : 1, v);
			d[j] = j == c ? v - g * hit : v;
		}
	}
	sum = block_sum(sum, tmp);
	if (threadIdx.x == 0)
		a.sums[blockIdx.x] = sum;
}

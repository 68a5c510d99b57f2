// The optimizer's vectors, in the arithmetic of package cpu: float64, rounded once.
struct squares_args {
	double *part; // [gridDim.x]
	const float *x;
	s64 n;
};
KERNEL(sum_squares, squares_args) {
	SHARED(double, tmp);
	double sum = 0;
	EACH(i, a.n) sum += (double)a.x[i] * a.x[i];
	sum = block_sum(sum, tmp);
	if (threadIdx.x == 0)
		a.part[blockIdx.x] = sum;
}

struct square_sum_args {
	float *dst;
	const double *part;
	int parts;
};
KERNEL(fold_squares, square_sum_args) {
	if (blockIdx.x == 0 && threadIdx.x == 0) {
		double sum = 0;
		for (int i = 0; i < a.parts; i++)
			sum += a.part[i];
		*a.dst = (float)sum;
	}
}

DEVICE bool finite(float x) { return x - x == 0; }

struct clip_args {
	float *factor;
	const float *sumsq;
	float max;
};
KERNEL(clip_factor, clip_args) {
	if (blockIdx.x == 0 && threadIdx.x == 0) {
		float s = *a.sumsq;
		*a.factor = finite(s) ? fminf(1, (float)((double)a.max / (double)((float)sqrt((double)s) + 1e-6f))) : s;
	}
}

struct scale_args {
	float *dst;
	const float *src, *factor; // src: dst (+)= factor·src, absent: dst *= factor
	s64 n;
	int acc;
};
KERNEL(scale_by, scale_args) {
	float f = *a.factor;
	EACH(i, a.n) {
		float v = a.src ? a.src[i] : a.dst[i];
		a.dst[i] = a.acc ? fmaf(f, v, a.dst[i]) : f * v;
	}
}

struct clamp_args {
	float *x;
	s64 n;
	float lo, hi;
};
KERNEL(clamp, clamp_args) {
	EACH(i, a.n) {
		float v = a.x[i];
		a.x[i] = v < a.lo ? a.lo : v > a.hi ? a.hi : v;
	}
}

struct lerp_args {
	float *dst;
	const float *src;
	s64 n;
	float w;
};
KERNEL(lerp, lerp_args) {
	EACH(i, a.n) a.dst[i] = (float)((double)a.dst[i] + __dmul_rn(a.w, (double)a.src[i] - a.dst[i]));
}

// A step of one of PyTorch's optimizers; package cpu tells what the constants are. A factor that
// is not finite only clears the gradient.
enum { SGD, Adam, RMSprop };

struct step_args {
	float *w, *g, *m, *v;
	const float *factor; // may be absent
	s64 n;
	int kind, nesterov, first;
	float l2, keep, lr, momentum, fresh, beta2, one_minus_beta1, one_minus_beta2, eps, step_size, sqrt_bias2;
};
KERNEL(step, step_args) {
	float factor = a.factor ? *a.factor : 1;
	bool skip = !finite(factor);
	EACH(i, a.n) {
		if (skip) {
			a.g[i] = 0;
			continue;
		}
		double w = a.w[i], d = (double)a.g[i] * factor + (double)a.l2 * w;
		w *= a.keep;
		if (a.kind == Adam) {
			double m = a.m[i];
			a.m[i] = (float)(m + a.one_minus_beta1 * (d - m));
			a.v[i] = (float)((double)a.beta2 * a.v[i] + a.one_minus_beta2 * d * d);
			w -= (double)a.step_size * a.m[i] / (sqrt((double)a.v[i]) / a.sqrt_bias2 + a.eps);
		} else {
			if (a.kind == RMSprop) {
				a.v[i] = (float)((double)a.v[i] * a.beta2 + d * d * a.one_minus_beta2);
				d /= sqrt((double)a.v[i]) + a.eps;
				if (a.momentum != 0)
					d = a.m[i] = (float)((double)a.m[i] * a.momentum + d);
			} else if (a.momentum != 0) {
				double buf = a.first ? d : (double)a.m[i] * a.momentum + d * a.fresh;
				a.m[i] = (float)buf;
				d = a.nesterov ? d + a.momentum * buf : buf;
			}
			w -= a.lr * d;
		}
		a.w[i] = (float)w;
		a.g[i] = 0;
	}
}

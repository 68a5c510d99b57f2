// Elementwise functions: cell.Activation and device.Function, by their numbers.
enum { Own, Sigmoid, Tanh, ReLU, HardSigmoid, HardTanh, Softsign, Identity, LeakyReLU, ELU, Softplus, Exp, Log, Square, RSqrt, Scale, Shift };

DEVICE float sigmoid(float x) { return 1 / (1 + expf(-x)); }

DEVICE float function(int f, float x, float alpha) {
	switch (f) {
	case Sigmoid: return sigmoid(x);
	case Tanh: return tanhf(x);
	case ReLU: return x > 0 || x != x ? x : 0;
	case HardSigmoid: return x != x ? x : fminf(fmaxf(fmaf(0.2f, x, 0.5f), 0), 1);
	case HardTanh: return x != x ? x : fminf(fmaxf(x, -1), 1);
	case Softsign: return x / (1 + fabsf(x));
	case LeakyReLU: return x < 0 ? 0.01f * x : x;
	case ELU: return x < 0 ? expm1f(x) : x;
	case Softplus: return x != x ? x : fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
	case Exp: return expf(x);
	case Log: return logf(x);
	case Square: return x * x;
	case RSqrt: return (float)(1 / sqrt((double)x + alpha));
	case Scale: return alpha * x;
	case Shift: return x + alpha;
	}
	return x; // Identity
}

// slope is d·f'(x), from y = f(x) or x, whichever the function needs. The other may be anything.
DEVICE float slope(int f, float d, float x, float y, float alpha) {
	switch (f) {
	case Sigmoid: return d * y * (1 - y);
	case Tanh: return d * (1 - y * y);
	case ReLU: return y != 0 ? d : 0;
	case HardSigmoid: return y > 0 && y < 1 ? 0.2f * d : 0 * d;
	case HardTanh: return y > -1 && y < 1 ? d : 0 * d;
	case Softsign: return d * (1 - fabsf(y)) * (1 - fabsf(y));
	case LeakyReLU: return y > 0 ? d : 0.01f * d;
	case ELU: return y > 0 ? d : d * (y + 1); // NaN stays NaN
	case Softplus: return d * sigmoid(x);
	case Exp: return d * y;
	case Log: return d / x;
	case Square: return 2 * d * x;
	case RSqrt: return -0.5f * d * y * y * y;
	case Scale: return alpha * d;
	}
	return d; // Identity, Shift
}

struct unary_args {
	float *y;
	const float *x;
	s64 n;
	int f;
	float alpha;
};
KERNEL(unary, unary_args) {
	EACH(i, a.n) a.y[i] = function(a.f, a.x[i], a.alpha);
}

struct unary_grad_args {
	float *dx;
	const float *dy, *x, *y; // x and y may be absent
	s64 n;
	int f, acc;
	float alpha;
};
KERNEL(unary_grad, unary_grad_args) {
	EACH(i, a.n) {
		float g = slope(a.f, a.dy[i], a.x ? a.x[i] : 0, a.y ? a.y[i] : 0, a.alpha);
		a.dx[i] = a.acc ? a.dx[i] + g : g;
	}
}

enum { Add, Sub, Mul, Div };

struct binary_args {
	float *z;
	const float *x, *y;
	s64 n, yn;
	int op;
};
KERNEL(binary, binary_args) {
	EACH(i, a.n) {
		float x = a.x[i], y = a.y[a.yn == a.n ? i : i % a.yn];
		a.z[i] = a.op == Add ? x + y : a.op == Sub ? x - y : a.op == Mul ? x * y : x / y;
	}
}

struct binary_grad_args {
	float *dx;
	const float *dz, *y;
	s64 n, yn;
	int op, acc;
};
KERNEL(binary_grad_x, binary_grad_args) {
	EACH(i, a.n) {
		float g = a.dz[i];
		if (a.op == Mul)
			g *= a.y[i % a.yn];
		else if (a.op == Div)
			g /= a.y[i % a.yn];
		a.dx[i] = a.acc ? a.dx[i] + g : g;
	}
}

// A sum over the repeats of y: part k of column j is that of repeats [k·block, (k+1)·block).
struct binary_sum_args {
	float *part; // [parts,yn]
	const float *dz, *x, *y;
	s64 yn, repeats, block, parts;
	int op;
};
KERNEL(binary_grad_y, binary_sum_args) {
	EACH(i, a.parts * a.yn) {
		s64 k = i / a.yn, j = i % a.yn, end = (k + 1) * a.block;
		double sum = 0, y = a.op == Div ? a.y[j] : 1;
		for (s64 r = k * a.block; r < end && r < a.repeats; r++) {
			s64 at = r * a.yn + j;
			double d = a.dz[at];
			if (a.op == Mul)
				d *= a.x[at];
			else if (a.op == Div)
				d *= -(a.x[at] / y) / y;
			sum += a.op == Sub ? -d : d;
		}
		a.part[i] = (float)sum;
	}
}

// dst[j] (+)= Σ_k part[k,j], k ascending.
struct fold_args {
	float *dst;
	const float *part;
	s64 cols, parts;
	int acc;
};
KERNEL(fold_parts, fold_args) {
	EACH(j, a.cols) {
		double sum = 0;
		for (s64 k = 0; k < a.parts; k++)
			sum += a.part[k * a.cols + j];
		a.dst[j] = a.acc ? a.dst[j] + (float)sum : (float)sum;
	}
}

// Part k of column j of a matrix is the sum of rows [k·block, (k+1)·block).
struct sum_rows_args {
	float *part;
	const float *src;
	s64 rows, cols, ld, block, parts;
};
KERNEL(sum_rows, sum_rows_args) {
	EACH(i, a.parts * a.cols) {
		s64 k = i / a.cols, j = i % a.cols, end = (k + 1) * a.block;
		double sum = 0;
		for (s64 r = k * a.block; r < end && r < a.rows; r++)
			sum += a.src[r * a.ld + j];
		a.part[i] = (float)sum;
	}
}

struct dropout_args {
	float *y;
	const float *x;
	s64 n;
	u64 key, threshold;
	float keep;
	int acc;
};
KERNEL(dropout, dropout_args) {
	EACH(i, a.n) {
		float v = a.x[i] * (masked(a.key, i, a.threshold) ? 0 : a.keep);
		a.y[i] = a.acc ? a.y[i] + v : v;
	}
}

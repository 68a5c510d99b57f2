// What the kernels of scans have in common: their arguments, how a launch is divided, and the
// arithmetic of cells. Macros fix what is then a constant of the code: CELL the cell, PLAIN that
// it has none of its options, FREE that it has no R, KIND_R and KIND_P what products with R and P
// are rounded to.

enum { LSTM, GRU, RNN_TANH, RNN_RELU, COUPLED_LSTM, GRU_BEFORE, SLSTM, MIN_GRU, MIN_LSTM };
enum { OWN, SIGMOID, TANH, RELU, HARD_SIGMOID, HARD_TANH, SOFTSIGN, IDENTITY, LEAKY_RELU, ELU, SOFTPLUS };
enum { F32, BF16, FP16, INT8, TF32 };

#ifndef CELL
#define CELL a.cell
#endif
#ifndef PLAIN
#define PLAIN 0
#endif
#define OPTION(x) (PLAIN ? 0 : (x))
#if PLAIN
#define DEVICE_OPTION DEVICE
#else
#define DEVICE_OPTION DEVICE_CALLED // activations are chosen at run time
#endif
#ifndef KIND_R
#define KIND_R F32
#endif
#ifndef KIND_P
#define KIND_P F32
#endif

// mask is one stream of the generator: a number is dropped if its 32 bits are below limit.
struct mask {
	u64 key;
	s64 limit;   // 0: nothing is dropped
	float keep;  // the factor of those that are not dropped, or with expect of all
	int expect;
};

// A scan: the names are those of device.ScanSpec and of scanWork. Addresses are 0 for what is absent.
struct scan_args {
	const float *r, *p, *bw, *br, *peep_i, *peep_f, *peep_o, *norm_x, *norm_r, *norm_c, *bias_c, *h0, *c0;
	const int *active, *rows;
	float *gates, *side, *hs, *cs, *h_in, *mid, *xhat, *stats;
	float *y, *hn, *cn;
	const float *dy, *dhn, *dcn, *gain;
	float *dh, *dc, *dr, *dmid, *dp, *acc;   // carried back: [B,O], [B,C], [B,O], [B,H]; [T,B,O]; [B,acc_n]
	float *trace_dh, *trace_dc, *dh0, *dc0;
	u32 *barriers;                 // a word for each group of rows
	s64 y_step, y_row;             // distances in y and dy of times and of rows
	mask drop_h, zone_h, zone_c;   // of what enters R, of h, of c
	int cell, t, b, h, o, gw, cw, sw, joined, tied; // see scan in scan.go
	int t0, steps, first_step;     // times [t0, t0+steps), and the time of the first rows of gates
	int keep, reverse, starts, ends, proj, norm, drops;
	int gate_act, in_act, out_act;
	float gate_clip, cell_clip;
	int acc_n, at_pi, at_pf, at_po, at_nx, at_nr, at_nc, at_bc, at_br;  // of acc: -1 for what is not collected
	int blocks, group, units, outs; // blocks and rows of a group of rows; units of H and of O of a block
	int slice_r, slice_p, staging;  // where these begin in shared memory, in words; -1: R or P is read again in each step
	int held_r, held_p, tiles, x_at; // of products: see product.cu
};

DEVICE int gates_of(int cell) {
	switch (cell) {
	case LSTM: case SLSTM: return 4;
	case GRU: case COUPLED_LSTM: case GRU_BEFORE: case MIN_LSTM: return 3;
	case MIN_GRU: return 2;
	}
	return 1;
}
DEVICE int states_of(int cell) { return cell == LSTM || cell == COUPLED_LSTM ? 1 : cell == SLSTM ? 3 : 0; } // beside h

// share is what a block does: its units of H and of O for the rows of its group.
struct share {
	int block, u0, u1, o0, o1, r0, r1;
};
DEVICE share share_of(const scan_args &a) {
	share s;
	int group = blockIdx.x / a.blocks;
	s.block = blockIdx.x % a.blocks;
	s.u0 = min(s.block * a.units, a.h), s.u1 = min(s.u0 + a.units, a.h);
	s.o0 = min(s.block * a.outs, a.o), s.o1 = min(s.o0 + a.outs, a.o);
	s.r0 = min(group * a.group, a.b), s.r1 = min(s.r0 + a.group, a.b);
	return s;
}
// sync_group waits for the blocks of the same rows.
DEVICE void sync_group(const scan_args &a) {
	if (a.blocks == 1)
		sync_block();
	else
		sync_blocks(a.barriers + blockIdx.x / a.blocks, a.blocks, blockIdx.x % a.blocks == 0);
}
// SHARE is a loop over rows [r0,r1) and units [u0,u1) by the threads of a block, neighbours for neighbours.
#define SHARE(row, u, r0, r1, u0, u1)                                                    \
	for (int i_ = threadIdx.x, n_ = (u1) - (u0); i_ < ((r1) - (r0)) * n_; i_ += blockDim.x) \
		for (int row = (r0) + i_ / n_, u = (u0) + i_ % n_, once_ = 1; once_; once_ = 0)

// expect begins to move to the L2 cache, for rows [r0,r1), the units [u0,u1) of each of count gates.
DEVICE void expect(const float *at, s64 ld, s64 gate, int count, int r0, int r1, int u0, int u1) {
	for (int i = threadIdx.x; i < (r1 - r0) * count && at && u0 < u1; i += blockDim.x) {
		const float *first = at + (r0 + i / count) * ld + i % count * gate + u0;
		for (int u = 0; u < u1 - u0; u += 32)
			prefetch_l2(first + u);
	}
}

// moment is a time of a scan, with the first rows of it in Gates and the other parts of Work, and
// of the states before and after it.
struct moment {
	int t, inside; // rows inside their sequences: the first ones
	s64 first, before, after;
};
DEVICE moment moment_of(const scan_args &a, int t) {
	moment m = {t, a.active ? a.active[t] : a.b, (s64)(t - a.first_step) * a.b, 0, 0};
	m.before = (s64)(a.keep ? t + a.reverse : t & 1) * a.b;
	m.after = (s64)(a.keep ? t + !a.reverse : ~t & 1) * a.b;
	return m;
}

// drawn returns the factor of element j of a row at a time: 0 or m.keep.
DEVICE_OPTION float drawn(const scan_args &a, const mask &m, int row, int t, int j) {
	if (m.expect)
		return m.keep;
	return masked(mask_state(m.key, a.rows ? a.rows[row] : row, t), j, m.limit) ? 0 : m.keep;
}

// Activations, and their slopes as functions of their values.
DEVICE float sigmoid(float x) { return 1 / (1 + expf(-x)); }
DEVICE_OPTION float activate(int act, float x) {
	switch (act) {
	case SIGMOID: return sigmoid(x);
	case TANH: return tanhf(x);
	case RELU: return x > 0 || x != x ? x : 0;
	case HARD_SIGMOID: x = fmaf(0.2f, x, 0.5f); return x < 0 ? 0 : x > 1 ? 1 : x;
	case HARD_TANH: return x < -1 ? -1 : x > 1 ? 1 : x;
	case SOFTSIGN: return x / (1 + fabsf(x));
	case LEAKY_RELU: return x < 0 ? 0.01f * x : x;
	case ELU: return x < 0 ? expm1f(x) : x;
	case SOFTPLUS: return (x > 0 || x != x ? x : 0) + log1pf(expf(-fabsf(x)));
	}
	return x;
}
DEVICE_OPTION float slope(int act, float y) {
	switch (act) {
	case SIGMOID: return y * (1 - y);
	case TANH: return 1 - y * y;
	case RELU: return y > 0 ? 1 : 0;
	case HARD_SIGMOID: return y > 0 && y < 1 ? 0.2f : 0;
	case HARD_TANH: return y > -1 && y < 1 ? 1 : 0;
	case SOFTSIGN: y = 1 - fabsf(y); return y * y;
	case LEAKY_RELU: return y > 0 ? 1 : 0.01f;
	case ELU: return (y < 0 ? y : 0) + 1;
	case SOFTPLUS: return -expm1f(-y);
	}
	return 1;
}
DEVICE float clipped(float x, float limit) { return x < -limit ? -limit : x > limit ? limit : x; }

// Gates and candidates of a cell from pre-activations, and the gradients of these from the
// activation y and its gradient d. A clipped one is known by its activation.
DEVICE int gate_function(const scan_args &a) { return PLAIN ? SIGMOID : a.gate_act; }
DEVICE int in_function(const scan_args &a) { return PLAIN ? CELL == RNN_RELU ? RELU : TANH : a.in_act; }
DEVICE int out_function(const scan_args &a) { return PLAIN ? TANH : a.out_act; }
DEVICE float activated(const scan_args &a, int act, float x) {
	return activate(act, OPTION(a.gate_clip > 0) ? clipped(x, a.gate_clip) : x);
}
DEVICE_OPTION float activated_grad(const scan_args &a, int act, float y, float d) {
	if (OPTION(a.gate_clip > 0) && (y == activate(act, a.gate_clip) || y == activate(act, -a.gate_clip)))
		return 0;
	return d * slope(act, y);
}
DEVICE float gate(const scan_args &a, float x) { return activated(a, gate_function(a), x); }
DEVICE float in(const scan_args &a, float x) { return activated(a, in_function(a), x); }
DEVICE float gate_grad(const scan_args &a, float y, float d) { return activated_grad(a, gate_function(a), y, d); }
DEVICE float in_grad(const scan_args &a, float y, float d) { return activated_grad(a, in_function(a), y, d); }

// unit is one unit of a row in a step.
struct unit {
	float g[4];   // pre-activations, then activations; backward their gradients
	float side;   // GRU: R·h + b' of n; backward its gradient
	float h;      // before the step
	float c[3];   // the other states before it
	float out;    // the cell's h; backward: its gradient, and then the direct part of that of h
	float to[3];  // the other states after it, before zoneout; backward: their gradients, then those of c
};

// load_unit sets x to unit u of a row: its gates before or after the step, and its states before it.
DEVICE void load_unit(const scan_args &a, int cell, const moment &m, int row, int u, unit &x) {
	const float *gates = a.gates + (m.first + row) * a.gw + u;
	const int count = gates_of(cell), states = states_of(cell);
#pragma unroll
	for (int g = 0; g < 4; g++)
		x.g[g] = g < count ? gates[(s64)g * a.h] : 0;
#pragma unroll
	for (int k = 0; k < 3; k++)
		x.c[k] = k < states ? a.cs[(m.before + row) * a.cw + (s64)k * a.h + u] : 0;
	x.side = 0;
	x.h = cell == GRU || cell == GRU_BEFORE || cell >= MIN_GRU ? load_l2(a.hs + (m.before + row) * a.o + u) : 0;
}
DEVICE void store_gates(const scan_args &a, int cell, const moment &m, int row, int u, const unit &x) {
	float *gates = a.gates + (m.first + row) * a.gw + u;
	const int count = gates_of(cell);
#pragma unroll
	for (int g = 0; g < 4; g++)
		if (g < count)
			gates[(s64)g * a.h] = x.g[g];
}

// new_cell is c of an LSTM after a step, before zoneout.
DEVICE float new_cell(const scan_args &a, const unit &x, float f, float g) {
	float c = fmaf(x.g[0], g, f * x.c[0]);
	return OPTION(a.cell_clip > 0) ? clipped(c, a.cell_clip) : c;
}

// The sLSTM's values that follow from its pre-activations i and f: σ(f), i', f', m' and
// whether m' is log σ(f) + m.
struct slstm_values {
	float sig_f, i, f, m;
	bool past;
};
DEVICE slstm_values slstm_of(const unit &x) {
	float pre = x.g[0], e = expf(-fabsf(x.g[1]));
	slstm_values v = {x.g[1] < 0 ? e / (1 + e) : 1 / (1 + e), 1, 0, pre, false};
	if (x.c[1] == 0)
		return v;
	float stay = fminf(x.g[1], 0) - log1pf(e) + x.c[2];
	v.past = stay >= pre;
	if (v.past) // the larger exponent is 0
		v.m = stay, v.f = 1, v.i = expf(pre - stay);
	else
		v.f = expf(stay - pre);
	return v;
}

// cell_forward computes unit j: activations, states and output. An LSTM's output is that of a
// cell whose c is not normalised.
DEVICE void cell_forward(const scan_args &a, int cell, int j, unit &x) {
	float *g = x.g;
	switch (cell) {
	case LSTM:
	case COUPLED_LSTM: {
		bool coupled = cell == COUPLED_LSTM;
		float &candidate = g[coupled ? 1 : 2], &o = g[coupled ? 2 : 3];
		if (OPTION(a.peep_i != 0))
			g[0] = fmaf(a.peep_i[j], x.c[0], g[0]);
		if (!coupled && OPTION(a.peep_f != 0))
			g[1] = fmaf(a.peep_f[j], x.c[0], g[1]);
		g[0] = gate(a, g[0]);
		if (!coupled)
			g[1] = gate(a, g[1]);
		candidate = in(a, candidate);
		x.to[0] = new_cell(a, x, coupled ? 1 - g[0] : g[1], candidate);
		if (OPTION(a.peep_o != 0))
			o = fmaf(a.peep_o[j], x.to[0], o);
		o = gate(a, o);
		x.out = o * activate(out_function(a), x.to[0]);
		break;
	}
	case GRU:
	case GRU_BEFORE: // r and z are activations by now
		if (cell == GRU) {
			g[0] = gate(a, g[0]), g[1] = gate(a, g[1]);
			g[2] = fmaf(g[0], x.side, g[2]);
		}
		g[2] = in(a, g[2]);
		x.out = fmaf(g[1], x.h - g[2], g[2]);
		break;
	case RNN_TANH:
	case RNN_RELU:
		x.out = g[0] = in(a, g[0]);
		break;
	case SLSTM: {
		slstm_values v = slstm_of(x);
		g[2] = tanhf(g[2]), g[3] = sigmoid(g[3]);
		x.to[0] = fmaf(v.f, x.c[0], v.i * g[2]);
		x.to[1] = fmaf(v.f, x.c[1], v.i);
		x.to[2] = v.m;
		x.out = g[3] * (x.to[0] / x.to[1]);
		break;
	}
	case MIN_GRU:
		g[0] = sigmoid(g[0]);
		x.out = fmaf(g[0], g[1] - x.h, x.h);
		break;
	case MIN_LSTM: {
		g[0] = sigmoid(g[0]), g[1] = sigmoid(g[1]);
		float f = g[0] + g[1] == 0 ? 1 : g[0];
		x.out = fmaf(f, x.h, g[1] * g[2]) / (f + g[1]);
		break;
	}
	}
}

// collect adds to a row's gradient of a vector parameter.
DEVICE void collect(const scan_args &a, int row, int at, int j, float d) {
	if (at >= 0)
		a.acc[(s64)row * a.acc_n + at + j] += d;
}

// lstm_grad is the backward pass of an LSTM from the gradient d of the output gate's activation
// and that, shown, of c after the step by way of h. In x.g are the activations.
DEVICE void lstm_grad(const scan_args &a, int cell, int row, int t, int j, unit &x, float d, float shown) {
	bool coupled = cell == COUPLED_LSTM;
	float *g = x.g, &candidate = g[coupled ? 1 : 2], &o = g[coupled ? 2 : 3];
	float f = coupled ? 1 - g[0] : g[1], c = new_cell(a, x, f, candidate), dc = x.to[0], rest = 0;
	if (OPTION(a.zone_c.limit != 0)) {
		float fresh = drawn(a, a.zone_c, row, t, j);
		rest = (1 - fresh) * dc, dc *= fresh;
	}
	o = gate_grad(a, o, d);
	dc += shown;
	if (OPTION(a.peep_o != 0)) {
		dc = fmaf(a.peep_o[j], o, dc);
		collect(a, row, a.at_po, j, o * c);
	}
	if (OPTION(a.cell_clip > 0) && (c == a.cell_clip || c == -a.cell_clip))
		dc = 0;
	float di = dc * candidate, dg = dc * g[0], df = dc * x.c[0];
	x.to[0] = fmaf(dc, f, rest);
	if (coupled)
		di -= df;
	else
		g[1] = gate_grad(a, g[1], df);
	g[0] = gate_grad(a, g[0], di);
	candidate = in_grad(a, candidate, dg);
	if (OPTION(a.peep_i != 0)) {
		x.to[0] = fmaf(a.peep_i[j], g[0], x.to[0]);
		collect(a, row, a.at_pi, j, g[0] * x.c[0]);
	}
	if (!coupled && OPTION(a.peep_f != 0)) {
		x.to[0] = fmaf(a.peep_f[j], g[1], x.to[0]);
		collect(a, row, a.at_pf, j, g[1] * x.c[0]);
	}
}

// cell_grad is the backward pass of cell_forward for unit j of a row.
DEVICE void cell_grad(const scan_args &a, int cell, int row, int t, int j, unit &x) {
	float *g = x.g, dh = x.out;
	x.out = 0;
	switch (cell) {
	case LSTM:
	case COUPLED_LSTM: {
		bool coupled = cell == COUPLED_LSTM;
		float o = g[coupled ? 2 : 3], c = new_cell(a, x, coupled ? 1 - g[0] : g[1], g[coupled ? 1 : 2]);
		float u = activate(out_function(a), c);
		lstm_grad(a, cell, row, t, j, x, dh * u, dh * o * slope(out_function(a), u));
		break;
	}
	case GRU:
	case GRU_BEFORE: {
		float dn = in_grad(a, g[2], (1 - g[1]) * dh);
		x.out = dh * g[1];
		g[1] = gate_grad(a, g[1], (x.h - g[2]) * dh);
		g[2] = dn;
		if (cell == GRU_BEFORE) // r waits for the gradient of its product with h
			break;
		float dside = dn * g[0];
		g[0] = gate_grad(a, g[0], dn * x.side);
		x.side = dside;
		break;
	}
	case RNN_TANH:
	case RNN_RELU:
		g[0] = in_grad(a, g[0], dh);
		break;
	case SLSTM: { // with the gradient of m, so that it is exact for every state
		slstm_values v = slstm_of(x);
		float z = g[2], o = g[3], c = fmaf(v.f, x.c[0], v.i * z), n = fmaf(v.f, x.c[1], v.i), ratio = c / n;
		float dc = x.to[0] + dh * o / n, dn = x.to[1] - dh * o * ratio / n;
		float di = fmaf(dc, z, dn) * v.i; // of the exponent of i'
		float df = fmaf(dc, x.c[0], dn * x.c[1]) * v.f;
		float dm = x.to[2] - di - df;
		if (v.past)
			df += dm;
		else
			di += dm;
		g[0] = di, g[1] = df * (1 - v.sig_f);
		g[2] = dc * v.i * (1 - z * z), g[3] = dh * ratio * o * (1 - o);
		x.to[0] = dc * v.f, x.to[1] = dn * v.f, x.to[2] = df;
		break;
	}
	case MIN_GRU: {
		float z = g[0];
		g[0] = dh * (g[1] - x.h) * z * (1 - z);
		g[1] = dh * z;
		x.out = dh * (1 - z);
		break;
	}
	case MIN_LSTM: {
		float i = g[1], n = g[2], f = g[0] + i == 0 ? 1 : g[0], s = f + i;
		float d = dh * (x.h - n) * (f / s) * (i / s);
		g[0] = d * (1 - f), g[1] = -d * (1 - i), g[2] = dh * i / s;
		x.out = dh * f / s;
		break;
	}
	}
}

// Layer normalisation inside a cell, by a block. The sums of a row have one order.
struct standard {
	float mean, rstd;
};
// standard_of returns the statistics of n numbers, the i-th of which is value(i).
template <class F> DEVICE standard standard_of(int n, float *tmp, F value) {
	float sum = 0, squares = 0;
	for (int i = threadIdx.x; i < n; i += blockDim.x)
		sum += value(i);
	float mean = block_sum(sum, tmp) / n;
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		float v = value(i) - mean; // centred: no cancellation
		squares = fmaf(v, v, squares);
	}
	return {mean, rsqrtf(block_sum(squares, tmp) / n + 1e-5f)};
}
// norm_end returns the end of the block of gates that is normalised together and begins at gate g.
DEVICE int norm_end(int cell, int g) { return cell == GRU && g == 0 ? 2 : gates_of(cell); }

// Scans backward: internal/cpu/scan_grad.go has the loop that they are.

// output_grad adds up the gradients that reach element j of h after the step, and returns that of
// the cell's h; *rest becomes the part of the old state.
DEVICE float output_grad(const scan_args &a, const moment &m, int row, int j, float *rest) {
	s64 i = (s64)row * a.o + j, at = (s64)m.t * a.b + row;
	float dh = load_l2(a.dh + i);
	if (OPTION(a.drops))
		dh = fmaf(load_l2(a.dr + i), drawn(a, a.drop_h, row, 0, j), dh);
	if (a.gain)
		dh *= a.gain[at];
	if (a.dy)
		dh += a.dy[m.t * a.y_step + row * a.y_row + j];
	if (a.trace_dh)
		a.trace_dh[at * a.o + j] = dh;
	*rest = 0;
	if (OPTION(a.zone_h.limit != 0)) {
		float fresh = drawn(a, a.zone_h, row, m.t, j);
		*rest = (1 - fresh) * dh, dh *= fresh;
	}
	return dh;
}

// load_grads sets x.to to the gradients of a unit's other states after the step.
DEVICE void load_grads(const scan_args &a, int cell, const moment &m, int row, int u, unit &x) {
	const int states = states_of(cell);
	s64 at = (s64)m.t * a.b + row;
#pragma unroll
	for (int k = 0; k < 3; k++) {
		x.to[k] = 0;
		if (k >= states)
			continue;
		float d = a.dc[(s64)row * a.cw + (s64)k * a.h + u];
		if (a.gain)
			d *= a.gain[at];
		if (a.trace_dc)
			a.trace_dc[at * a.cw + (s64)k * a.h + u] = d;
		x.to[k] = d;
	}
}

// store_grads stores the gradients of a unit's pre-activations and of its other states before the step.
DEVICE void store_grads(const scan_args &a, int cell, const moment &m, int row, int u, const unit &x) {
	store_gates(a, cell, m, row, u, x);
	const int states = states_of(cell);
#pragma unroll
	for (int k = 0; k < 3; k++)
		if (k < states)
			a.dc[(s64)row * a.cw + (s64)k * a.h + u] = x.to[k];
}

// unit_grad is the backward pass of a unit whose h has the gradient dh. It returns the direct part of that of the
// old h.
DEVICE float unit_grad(const scan_args &a, int cell, const moment &m, int row, int u, float dh) {
	unit x;
	load_unit(a, cell, m, row, u, x);
	load_grads(a, cell, m, row, u, x);
	float *side = cell == GRU ? a.side + (m.first + row) * a.sw + u : 0;
	if (side)
		x.side = *side;
	x.out = dh;
	cell_grad(a, cell, row, m.t, u, x);
	store_grads(a, cell, m, row, u, x);
	if (side)
		*side = x.side;
	return x.out;
}

// standard_grad sets n standardised numbers to the gradients of what they were made of:
// rstd·(g - mean(g) - x·mean(g·x)), where g(i) is the gradient of the i-th, x. All threads of a block.
template <class F> DEVICE void standard_grad(int n, float rstd, float *x, float *tmp, F g) {
	float sum = 0, dot = 0;
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		float d = g(i);
		sum += d, dot = fmaf(d, x[i], dot);
	}
	float m1 = block_sum(sum, tmp) / n, m2 = block_sum(dot, tmp) / n;
	for (int i = threadIdx.x; i < n; i += blockDim.x)
		x[i] = rstd * (fmaf(-m2, x[i], g(i)) - m1);
}

// normalised_row_grad is the backward pass of normalised_row. The gradient of the cell's h is in
// dmid. It leaves the gradients of W·x in xhat and of R·h in side.
DEVICE void normalised_row_grad(const scan_args &a, int cell, const moment &m, int row, float *tmp) {
	float *gates = a.gates + (m.first + row) * a.gw, *side = a.side + (m.first + row) * a.sw, *xhat = a.xhat + (m.first + row) * a.gw;
	float *stats = a.stats + (m.first + row) * 4, *dmid = a.dmid + (s64)row * a.h;
	const int count = gates_of(cell);
	const bool coupled = cell == COUPLED_LSTM;
	if (!a.proj)
		for (int u = threadIdx.x; u < a.h; u += blockDim.x) {
			float rest;
			dmid[u] = output_grad(a, m, row, u, &rest);
			a.dh[(s64)row * a.o + u] = rest;
		}
	if (cell == GRU) {
		for (int u = threadIdx.x; u < a.h; u += blockDim.x) {
			unit x;
			load_unit(a, cell, m, row, u, x);
			int n = 2 * a.h + u; // the gate that keeps R·h separate
			x.side = a.norm_r[n] * side[n] + (a.br ? a.br[n] : 0);
			x.out = dmid[u];
			cell_grad(a, cell, row, m.t, u, x);
			store_gates(a, cell, m, row, u, x);
			collect(a, row, a.at_nr, n, x.side * side[n]);
			collect(a, row, a.at_br, u, x.side);
			dmid[u] = x.side; // its gradient
			a.dh[(s64)row * a.o + u] += x.out;
		}
	} else if (!a.norm_c) {
		for (int u = threadIdx.x; u < a.h; u += blockDim.x)
			unit_grad(a, cell, m, row, u, load_l2(dmid + u));
	} else {
		auto load = [&](int u) {
			unit x;
			load_unit(a, cell, m, row, u, x);
			x.out = new_cell(a, x, coupled ? 1 - x.g[0] : x.g[1], x.g[coupled ? 1 : 2]);
			return x;
		};
		standard s = standard_of(a.h, tmp, [&](int u) { return load(u).out; });
		// The gradient of c by way of h is that of the standardised c, then of c.
		auto shown = [&](int u, float c) { return activate(out_function(a), a.norm_c[u] * ((c - s.mean) * s.rstd) + (a.bias_c ? a.bias_c[u] : 0)); };
		auto through = [&](int u, const unit &x) { return load_l2(dmid + u) * x.g[coupled ? 2 : 3] * slope(out_function(a), shown(u, x.out)); };
		float sum = 0, dot = 0;
		for (int u = threadIdx.x; u < a.h; u += blockDim.x) {
			unit x = load(u);
			float d = through(u, x), hat = (x.out - s.mean) * s.rstd;
			collect(a, row, a.at_nc, u, d * hat);
			collect(a, row, a.at_bc, u, d);
			d *= a.norm_c[u];
			sum += d, dot = fmaf(d, hat, dot);
		}
		float m1 = block_sum(sum, tmp) / a.h, m2 = block_sum(dot, tmp) / a.h;
		for (int u = threadIdx.x; u < a.h; u += blockDim.x) {
			unit x = load(u);
			float hat = (x.out - s.mean) * s.rstd, d = s.rstd * (fmaf(-m2, hat, through(u, x) * a.norm_c[u]) - m1);
			load_grads(a, cell, m, row, u, x);
			lstm_grad(a, cell, row, m.t, u, x, load_l2(dmid + u) * shown(u, x.out), d);
			store_grads(a, cell, m, row, u, x);
		}
	}
	sync_block();
	for (int i = threadIdx.x; i < a.gw; i += blockDim.x) {
		collect(a, row, a.at_nx, i, gates[i] * xhat[i]);
		if (i < a.tied)
			collect(a, row, a.at_nr, i, gates[i] * side[i]);
	}
	sync_block();
	for (int g = 0, k = 0; g < count; g = norm_end(cell, g), k++) {
		int at = g * a.h, n = (norm_end(cell, g) - g) * a.h;
		standard_grad(n, stats[k], xhat + at, tmp, [&](int i) { return gates[at + i] * a.norm_x[at + i]; });
		standard_grad(n, stats[2 + k], side + at, tmp, [&](int i) { return (at + i < a.tied ? gates[at + i] : dmid[at + i - a.tied]) * a.norm_r[at + i]; });
	}
	sync_block();
}

#ifndef FREE
// scan_grad runs all steps backward. It leaves the gradients of pre-activations in gates, and in
// side those of what R·h is kept apart.
KERNEL(scan_grad, scan_args) {
	SHARED(u32, shared);
	const int cell = CELL;
	const share s = share_of(a);
	const bool proj = OPTION(a.proj) != 0, norm = OPTION(a.norm) != 0, twice = cell == GRU_BEFORE;
	u32 *work = shared + a.staging;
	float *tmp = (float *)work;

	product r = {twice ? a.joined : a.gw, 0, 0, a.gw, a.sw, a.joined, a.r, 0, 1, a.o, 1, s.o0, s.o1 - s.o0, a.slice_r, a.held_r, a.tiles, a.x_at};
	product second = {a.o, 0, 0, a.o, 0, a.o, a.p, 0, 1, a.h, 1, s.u0, s.u1 - s.u0, a.slice_p, a.held_p, a.tiles, a.x_at};
	if (twice)
		second.k = second.joined = a.h, second.ld = a.gw, second.w = a.r + (s64)2 * a.h * a.o, second.deep = a.o;
	keep_weights<KIND_R>(r, shared);
	if (twice)
		keep_weights<KIND_R>(second, shared);
	else if (proj)
		keep_weights<KIND_P>(second, shared);

	SHARE(row, j, s.r0, s.r1, s.o0, s.o1) {
		s64 i = (s64)row * a.o + j;
		a.dh[i] = a.dhn ? a.dhn[i] : 0;
		if (OPTION(a.drops))
			a.dr[i] = 0;
	}
	for (int k = 0; k < a.cw; k += a.h)
		SHARE(row, u, s.r0, s.r1, s.u0, s.u1) {
			s64 i = (s64)row * a.cw + k + u;
			a.dc[i] = a.dcn ? a.dcn[i] : 0;
		}
	for (int row = s.r0 + s.block; row < s.r1; row += a.blocks)
		for (int i = threadIdx.x; i < a.acc_n; i += blockDim.x)
			a.acc[(s64)row * a.acc_n + i] = 0;
	sync_group(a);
	for (int i = 0; i < a.t; i++) {
		moment m = moment_of(a, a.reverse ? i : a.t - 1 - i);
		int end = min(max(m.inside, s.r0), s.r1);
		// The arithmetic of the cell, with what it needs of products before it.
		if (proj) {
			SHARE(row, j, s.r0, end, s.o0, s.o1) {
				float rest;
				a.dp[((s64)m.t * a.b + row) * a.o + j] = output_grad(a, m, row, j, &rest);
				a.dh[(s64)row * a.o + j] = rest;
			}
			sync_group(a);
			second.at = a.dp + (s64)m.t * a.b * a.o;
			multiply<KIND_P>(second, s.r0, end, shared, work, [&](int row, int u, const sums &sum) {
				if (norm)
					a.dmid[(s64)row * a.h + u] = sum(0);
				else
					unit_grad(a, cell, m, row, u, sum(0));
			});
			if (norm)
				sync_group(a);
		} else if (!norm) {
			SHARE(row, u, s.r0, end, s.u0, s.u1) {
				float rest, dh = output_grad(a, m, row, u, &rest);
				a.dh[(s64)row * a.o + u] = rest + unit_grad(a, cell, m, row, u, dh);
			}
		}
		if (norm)
			for (int row = s.r0 + s.block; row < end; row += a.blocks)
				normalised_row_grad(a, cell, m, row, tmp);
		if (i + 1 < a.t) { // what the next step reads comes while blocks wait
			moment next = moment_of(a, a.reverse ? i + 1 : a.t - 2 - i);
			expect(a.gates + next.first * a.gw, a.gw, a.h, gates_of(cell), s.r0, s.r1, s.u0, s.u1);
			expect(a.cs + next.before * a.cw, a.cw, a.h, states_of(cell), s.r0, s.r1, s.u0, s.u1);
			if (a.dy)
				expect(a.dy + next.t * a.y_step, a.y_row, 0, 1, s.r0, s.r1, s.o0, s.o1);
		}
		sync_group(a);
		if (twice) { // the gradient of r⊙h, then of r
			second.at = a.gates + m.first * a.gw + 2 * a.h;
			multiply<KIND_R>(second, s.r0, end, shared, work, [&](int row, int u, const sums &sum) {
				float *gates = a.gates + (m.first + row) * a.gw + u, reset = *gates, d = sum(0);
				s64 i = (s64)row * a.o + u;
				*gates = gate_grad(a, reset, d * (OPTION(a.drops) ? a.h_in : a.hs)[(m.before + row) * a.o + u]);
				if (OPTION(a.drops))
					a.dr[i] = d * reset;
				else
					a.dh[i] = fmaf(d, reset, load_l2(a.dh + i));
			});
			sync_group(a);
		}
		// What the step before gets through R.
		r.at = a.gates + m.first * a.gw, r.then = a.side + m.first * a.sw;
		multiply<KIND_R>(r, s.r0, end, shared, work, [&](int row, int j, const sums &sum) {
			s64 i = (s64)row * a.o + j;
			if (!OPTION(a.drops))
				a.dh[i] = load_l2(a.dh + i) + sum(0);
			else
				a.dr[i] = twice ? load_l2(a.dr + i) + sum(0) : sum(0);
		});
		if (norm && !proj)
			sync_group(a); // a row belongs to another block than its units
		else
			sync_block();
	}
	SHARE(row, j, s.r0, s.r1, s.o0, s.o1) {
		s64 i = (s64)row * a.o + j;
		float dh = load_l2(a.dh + i);
		if (OPTION(a.drops))
			dh = fmaf(load_l2(a.dr + i), drawn(a, a.drop_h, row, 0, j), dh);
		if (a.dh0)
			a.dh0[i] += dh;
	}
	sync_group(a); // dc of normalised rows
	for (int k = 0; k < a.cw && a.dc0; k += a.h)
		SHARE(row, u, s.r0, s.r1, s.u0, s.u1) {
			s64 i = (s64)row * a.cw + k + u;
			a.dc0[i] += load_l2(a.dc + i);
		}
}
#else
// scan_grad_free is scan_grad for a cell without R: a thread for each unit of a row.
KERNEL(scan_grad_free, scan_args) {
	const int cell = CELL;
	EACH(i, (s64)a.b * a.h) {
		int row = i / a.h, u = i % a.h;
		a.dh[i] = a.dhn ? a.dhn[i] : 0;
		for (int k = 0; k < a.t; k++) {
			moment m = moment_of(a, a.reverse ? k : a.t - 1 - k);
			if (row >= m.inside)
				continue;
			float rest, dh = output_grad(a, m, row, u, &rest);
			a.dh[i] = rest + unit_grad(a, cell, m, row, u, dh);
		}
		if (a.dh0)
			a.dh0[i] += load_l2(a.dh + i);
	}
}
#endif

// scan_clear sets the rows of each time that are past their ends to 0, so that they add nothing
// to products over all rows.
struct clear_args {
	float *x;
	const int *active;
	int t, b, width;
};
KERNEL(scan_clear, clear_args) {
	EACH(i, (s64)a.t * a.b * a.width) {
		s64 row = i / a.width;
		if (row % a.b >= a.active[row / a.b])
			a.x[i] = 0;
	}
}

// scan_inputs copies x, [T,B,I] or [B,T,I], to [T,B,I], with zeros past the ends.
struct inputs_args {
	float *dst;
	const float *x;
	const int *active;
	int t, b, width, batch_major;
};
KERNEL(scan_inputs, inputs_args) {
	EACH(i, (s64)a.t * a.b * a.width) {
		s64 row = i / a.width, t = row / a.b, b = row % a.b;
		s64 from = a.batch_major ? b * a.t + t : row;
		a.dst[i] = a.active && b >= a.active[t] ? 0 : a.x[from * a.width + i % a.width];
	}
}

// scan_sums adds up the rows of x in two launches, each in ascending order: first those of
// each block of rows to a row of dst, and then, of one block, dst[j] += sum, and dst2, if there is one.
struct sums_args {
	float *dst, *dst2;
	const float *x;
	s64 rows;
	int cols, ld, block, add, from; // from: the first column
};
KERNEL(scan_sums, sums_args) {
	s64 blocks = (a.rows + a.block - 1) / a.block;
	EACH(i, blocks * a.cols) {
		s64 first = i / a.cols * a.block, last = min(first + a.block, a.rows);
		int j = i % a.cols;
		float sum = 0;
		for (s64 row = first; row < last; row++)
			sum += a.x[row * a.ld + a.from + j];
		if (!a.add)
			a.dst[i] = sum;
		else {
			if (a.dst)
				a.dst[j] += sum;
			if (a.dst2)
				a.dst2[j] += sum;
		}
	}
}

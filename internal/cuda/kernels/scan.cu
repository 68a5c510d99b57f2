// Scans forward: internal/cpu/scan.go has the loop that they are, and device.ScanSpec its meaning.

// new_state sets element j of h after the step, the output and what enters R next.
DEVICE void new_state(const scan_args &a, const moment &m, int row, int j, float h) {
	if (OPTION(a.zone_h.limit != 0)) {
		float fresh = drawn(a, a.zone_h, row, m.t, j), old = load_l2(a.hs + (m.before + row) * a.o + j);
		h = fmaf(fresh, h, (1 - fresh) * old);
	}
	a.hs[(m.after + row) * a.o + j] = h;
	if (OPTION(a.drops))
		a.h_in[(m.after + row) * a.o + j] = h * drawn(a, a.drop_h, row, 0, j);
	if (a.y)
		a.y[m.t * a.y_step + row * a.y_row + j] = h;
}

// finish_unit stores what cell_forward has computed.
DEVICE void finish_unit(const scan_args &a, int cell, const moment &m, int row, int u, unit &x) {
	store_gates(a, cell, m, row, u, x);
	const int states = states_of(cell);
#pragma unroll
	for (int k = 0; k < 3; k++) {
		if (k >= states)
			continue;
		if (OPTION(a.zone_c.limit != 0)) {
			float fresh = drawn(a, a.zone_c, row, m.t, u);
			x.to[k] = fmaf(fresh, x.to[k], (1 - fresh) * x.c[k]);
		}
		a.cs[(m.after + row) * a.cw + (s64)k * a.h + u] = x.to[k];
	}
	if (OPTION(a.proj))
		a.mid[(m.first + row) * a.h + u] = x.out;
	else
		new_state(a, m, row, u, x.out);
}

// normalised_row is a step of a row of a cell with layer normalisation, from W·x in gates and R·h
// in side, which it leaves standardised in xhat and side.
DEVICE void normalised_row(const scan_args &a, int cell, const moment &m, int row, float *tmp) {
	float *gates = a.gates + (m.first + row) * a.gw, *side = a.side + (m.first + row) * a.sw, *xhat = a.xhat + (m.first + row) * a.gw;
	const int count = gates_of(cell);
	for (int g = 0, k = 0; g < count; g = norm_end(cell, g), k++) {
		int at = g * a.h, n = (norm_end(cell, g) - g) * a.h;
		standard x = standard_of(n, tmp, [&](int i) { return gates[at + i]; });
		standard r = standard_of(n, tmp, [&](int i) { return load_l2(side + at + i); });
		if (threadIdx.x == 0) {
			a.stats[(m.first + row) * 4 + k] = x.rstd;
			a.stats[(m.first + row) * 4 + 2 + k] = r.rstd;
		}
		for (int i = at + threadIdx.x; i < at + n; i += blockDim.x) {
			xhat[i] = (gates[i] - x.mean) * x.rstd;
			side[i] = (load_l2(side + i) - r.mean) * r.rstd;
		}
		sync_block();
	}
	for (int u = threadIdx.x; u < a.h; u += blockDim.x) {
		unit x;
		load_unit(a, cell, m, row, u, x);
#pragma unroll
		for (int g = 0; g < 4; g++) {
			int i = g * a.h + u;
			if (g >= count)
				continue;
			x.g[g] = a.norm_x[i] * xhat[i];
			if (a.bw)
				x.g[g] += i < a.tied ? a.bw[i] + a.br[i] : a.bw[i];
			if (i < a.tied)
				x.g[g] = fmaf(a.norm_r[i], side[i], x.g[g]);
			else
				x.side = a.norm_r[i] * side[i] + (a.br ? a.br[i] : 0);
		}
		cell_forward(a, cell, u, x);
		if (!a.norm_c) {
			finish_unit(a, cell, m, row, u, x);
			continue;
		}
		store_gates(a, cell, m, row, u, x);
	}
	if (!a.norm_c)
		return;
	bool coupled = cell == COUPLED_LSTM;
	auto c = [&](int u) { // the same thread has stored the gates of this unit
		unit x;
		load_unit(a, cell, m, row, u, x);
		return new_cell(a, x, coupled ? 1 - x.g[0] : x.g[1], x.g[coupled ? 1 : 2]);
	};
	standard s = standard_of(a.h, tmp, c);
	for (int u = threadIdx.x; u < a.h; u += blockDim.x) {
		unit x;
		load_unit(a, cell, m, row, u, x);
		x.to[0] = c(u);
		float shown = a.norm_c[u] * ((x.to[0] - s.mean) * s.rstd) + (a.bias_c ? a.bias_c[u] : 0);
		x.out = x.g[coupled ? 2 : 3] * activate(out_function(a), shown);
		finish_unit(a, cell, m, row, u, x);
	}
}

#ifndef FREE
// scan runs the steps of times [t0, t0+steps), with W·x (and its bias) in gates. Blocks that
// share rows wait for each other after each product.
KERNEL(scan, scan_args) {
	SHARED(u32, shared);
	const int cell = CELL, count = gates_of(cell);
	const share s = share_of(a);
	const bool proj = OPTION(a.proj) != 0, norm = OPTION(a.norm) != 0, twice = cell == GRU_BEFORE;
	u32 *work = shared + a.staging;
	float *tmp = (float *)work;

	product r = {a.o, 0, 0, a.o, 0, a.o, a.r, (s64)a.h * a.o, a.o, 1, twice ? 2 : count, s.u0, s.u1 - s.u0, a.slice_r, a.held_r, a.tiles, a.x_at};
	product second = {a.h, 0, 0, a.h, 0, a.h, a.p, 0, a.h, 1, 1, s.o0, s.o1 - s.o0, a.slice_p, a.held_p, a.tiles, a.x_at};
	if (twice)
		second.w = a.r + (s64)2 * a.h * a.o, second.unit = a.o;
	keep_weights<KIND_R>(r, shared);
	if (twice)
		keep_weights<KIND_R>(second, shared);
	else if (proj)
		keep_weights<KIND_P>(second, shared);

	if (a.starts) {
		moment m = moment_of(a, a.reverse ? a.t - 1 : 0);
		SHARE(row, j, s.r0, s.r1, s.o0, s.o1) {
			float h = a.h0 ? a.h0[(s64)row * a.o + j] : 0;
			a.hs[(m.before + row) * a.o + j] = h;
			if (OPTION(a.drops))
				a.h_in[(m.before + row) * a.o + j] = h * drawn(a, a.drop_h, row, 0, j);
		}
		for (int k = 0; k < a.cw; k += a.h)
			SHARE(row, u, s.r0, s.r1, s.u0, s.u1)
				a.cs[(m.before + row) * a.cw + k + u] = a.c0 ? a.c0[(s64)row * a.cw + k + u] : 0;
	}
	sync_group(a);
	for (int i = 0; i < a.steps; i++) {
		moment m = moment_of(a, a.t0 + (a.reverse ? a.steps - 1 - i : i));
		int end = min(max(m.inside, s.r0), s.r1); // of the rows inside
		r.at = (OPTION(a.drops) ? a.h_in : a.hs) + m.before * a.o;
		multiply<KIND_R>(r, s.r0, end, shared, work, [&](int row, int u, const sums &sum) {
			if (norm) {
				for (int g = 0; g < count; g++)
					a.side[(m.first + row) * a.sw + (s64)g * a.h + u] = sum(g);
				return;
			}
			unit x;
			load_unit(a, cell, m, row, u, x);
#pragma unroll
			for (int g = 0; g < 4; g++) {
				if (g >= count)
					continue;
				int j = g * a.h + u;
				float bias = a.br ? a.br[j] : 0;
				if (twice && g == 2)
					x.g[g] += bias;
				else if (cell == GRU && g == 2)
					x.side = sum(g) + bias;
				else
					x.g[g] += sum(g) + bias;
			}
			if (cell == GRU)
				a.side[(m.first + row) * a.sw + u] = x.side;
			if (twice) {
				x.g[0] = gate(a, x.g[0]), x.g[1] = gate(a, x.g[1]);
				store_gates(a, cell, m, row, u, x);
				a.side[(m.first + row) * a.sw + u] = x.g[0] * load_l2(r.at + (s64)row * a.o + u);
				return;
			}
			cell_forward(a, cell, u, x);
			finish_unit(a, cell, m, row, u, x);
		});
		SHARE(row, j, end, s.r1, s.o0, s.o1) { // past the end: zero output, unchanged state
			if (a.y)
				a.y[m.t * a.y_step + row * a.y_row + j] = 0;
			a.hs[(m.after + row) * a.o + j] = load_l2(a.hs + (m.before + row) * a.o + j);
			if (OPTION(a.drops))
				a.h_in[(m.after + row) * a.o + j] = load_l2(a.h_in + (m.before + row) * a.o + j);
		}
		for (int k = 0; k < a.cw; k += a.h)
			SHARE(row, u, end, s.r1, s.u0, s.u1)
				a.cs[(m.after + row) * a.cw + k + u] = load_l2(a.cs + (m.before + row) * a.cw + k + u);
		if (norm) {
			sync_group(a);
			for (int row = s.r0 + s.block; row < end; row += a.blocks)
				normalised_row(a, cell, m, row, tmp);
		}
		if (twice) {
			sync_group(a);
			second.at = a.side + m.first * a.sw;
			multiply<KIND_R>(second, s.r0, end, shared, work, [&](int row, int u, const sums &sum) {
				unit x;
				load_unit(a, cell, m, row, u, x);
				x.g[2] += sum(0);
				cell_forward(a, cell, u, x);
				finish_unit(a, cell, m, row, u, x);
			});
		}
		if (proj) {
			sync_group(a);
			second.at = a.mid + m.first * a.h;
			multiply<KIND_P>(second, s.r0, end, shared, work, [&](int row, int j, const sums &sum) { new_state(a, m, row, j, sum(0)); });
		}
		if (i + 1 < a.steps) { // the input of the next step comes while blocks wait
			moment next = moment_of(a, a.t0 + (a.reverse ? a.steps - 2 - i : i + 1));
			expect(a.gates + next.first * a.gw, a.gw, a.h, count, s.r0, s.r1, s.u0, s.u1);
		}
		sync_group(a);
	}
	if (a.ends) {
		moment m = moment_of(a, a.reverse ? 0 : a.t - 1);
		SHARE(row, j, s.r0, a.hn ? s.r1 : s.r0, s.o0, s.o1)
			a.hn[(s64)row * a.o + j] = load_l2(a.hs + (m.after + row) * a.o + j);
		for (int k = 0; k < a.cw && a.cn; k += a.h)
			SHARE(row, u, s.r0, s.r1, s.u0, s.u1)
				a.cn[(s64)row * a.cw + k + u] = load_l2(a.cs + (m.after + row) * a.cw + k + u);
	}
}
#else
// scan_free is scan for a cell without R: a thread for each unit of a row.
KERNEL(scan_free, scan_args) {
	const int cell = CELL;
	EACH(i, (s64)a.b * a.h) {
		int row = i / a.h, u = i % a.h;
		if (a.starts)
			a.hs[moment_of(a, a.reverse ? a.t - 1 : 0).before * a.o + i] = a.h0 ? a.h0[i] : 0;
		for (int k = 0; k < a.steps; k++) {
			moment m = moment_of(a, a.t0 + (a.reverse ? a.steps - 1 - k : k));
			if (row < m.inside) {
				unit x;
				load_unit(a, cell, m, row, u, x);
				for (int g = 0; a.br && g < gates_of(cell); g++)
					x.g[g] += a.br[g * a.h + u];
				cell_forward(a, cell, u, x);
				finish_unit(a, cell, m, row, u, x);
			} else {
				if (a.y)
					a.y[m.t * a.y_step + row * a.y_row + u] = 0;
				a.hs[m.after * a.o + i] = load_l2(a.hs + m.before * a.o + i);
			}
		}
		if (a.ends && a.hn)
			a.hn[i] = load_l2(a.hs + moment_of(a, a.reverse ? 0 : a.t - 1).after * a.o + i);
	}
}
#endif

// scan_trace copies the rows of each time that are inside their sequences, or all.
struct trace_args {
	float *dst;
	const float *src;
	const int *active;
	int t, b, width;
};
KERNEL(scan_trace, trace_args) {
	EACH(i, (s64)a.t * a.b * a.width) {
		s64 row = i / a.width;
		if (!a.active || row % a.b < a.active[row / a.b])
			a.dst[i] = a.src[i];
	}
}

// Between numbers of ours, float32, and those that cuDNN computes with: 0 float32, 1 bfloat16,
// 2 half precision.
DEVICE float load_kind(const void *p, s64 i, int kind) {
	switch (kind) {
	case 0:
		return ((const float *)p)[i];
	case 1:
		return from_bf16(((const u16 *)p)[i]);
	}
	return from_fp16(((const u16 *)p)[i]);
}
DEVICE void store_kind(void *p, s64 i, float v, int kind) {
	switch (kind) {
	case 0:
		((float *)p)[i] = v;
		break;
	case 1:
		((u16 *)p)[i] = to_bf16(v);
		break;
	default:
		((u16 *)p)[i] = to_fp16(v);
	}
}

// Pieces of n numbers, such as the parameters of a layer.
#define PIECES 40
struct piece {
	float *ours; // for pack absent: zeros
	void *theirs;
	s64 n;
};
struct pieces_args {
	piece pieces[PIECES]; // one for each blockIdx.y
	int kind, acc;
};
// pack makes theirs of ours.
KERNEL(pack, pieces_args) {
	const piece &p = a.pieces[blockIdx.y];
	EACH(i, p.n) store_kind(p.theirs, i, p.ours ? p.ours[i] : 0, a.kind);
}
// unpack makes ours of theirs, or adds them.
KERNEL(unpack, pieces_args) {
	const piece &p = a.pieces[blockIdx.y];
	EACH(i, p.n) {
		float v = load_kind(p.theirs, i, a.kind);
		p.ours[i] = a.acc ? p.ours[i] + v : v;
	}
}

// Sequences: ours has ld numbers for each row and step, theirs n, and both are [T,B] or with
// batch_major [B,T]. With reverse, theirs begin at each row's last step. A warp moves a row.
struct steps_args {
	float *ours; // absent is zeros
	void *theirs;
	const int *active; // [T], rows that are inside their sequences; absent: all
	s64 ld;
	int t, b, n, kind, reverse, batch_major, acc;
};

struct step_place {
	s64 ours, theirs; // rows
	bool inside;
};

// step_of finds the rows of step t of row b.
DEVICE step_place step_of(const steps_args &a, s64 row) {
	int t = (int)(a.batch_major ? row % a.t : row / a.b), b = (int)(a.batch_major ? row / a.t : row % a.b);
	bool inside = !a.active || a.active[t] > b;
	if (!a.reverse || !inside)
		return {row, row, inside};
	int len = a.t; // how many of active are above b
	if (a.active) {
		int lo = t + 1;
		while (lo < len) {
			int mid = (lo + len) / 2;
			if (a.active[mid] > b)
				lo = mid + 1;
			else
				len = mid;
		}
	}
	s64 other = len - 1 - t;
	return {row, a.batch_major ? (s64)b * a.t + other : other * a.b + b, true};
}

#define EACH_ROW(row, rows) for (s64 row = ((s64)blockIdx.x * blockDim.x + threadIdx.x) / WARP; row < (rows); row += (s64)gridDim.x * blockDim.x / WARP)

// gather makes theirs of ours, with zeros outside of sequences.
KERNEL(gather_steps, steps_args) {
	EACH_ROW(row, (s64)a.t * a.b) {
		step_place p = step_of(a, row);
		for (int i = threadIdx.x % WARP; i < a.n; i += WARP)
			store_kind(a.theirs, p.theirs * a.n + i, p.inside && a.ours ? a.ours[p.ours * a.ld + i] : 0, a.kind);
	}
}
// scatter makes ours of theirs, likewise.
KERNEL(scatter_steps, steps_args) {
	EACH_ROW(row, (s64)a.t * a.b) {
		step_place p = step_of(a, row);
		for (int i = threadIdx.x % WARP; i < a.n; i += WARP) {
			float *to = &a.ours[p.ours * a.ld + i], v = p.inside ? load_kind(a.theirs, p.theirs * a.n + i, a.kind) : 0;
			*to = a.acc ? *to + v : v;
		}
	}
}

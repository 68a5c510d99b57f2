// Memory as words of 32 bits.
struct fill_args {
	u32 *dst;
	s64 n;
	u32 v;
};
KERNEL(fill_words, fill_args) {
	EACH(i, a.n) a.dst[i] = a.v;
}

struct copy_args {
	u32 *dst;
	const u32 *src; // may be pinned memory of the host
	s64 n;
};
KERNEL(copy_words, copy_args) {
	EACH(i, a.n) a.dst[i] = a.src[i];
}

struct add_args {
	float *dst;
	const float *src;
	s64 n;
};
KERNEL(add_to, add_args) {
	EACH(i, a.n) a.dst[i] += a.src[i];
}

// A strided copy, device.PermuteSpec. Dimensions whose elements have one destination together are
// the inner ones: a thread goes through them in their order.
struct permute_args {
	u32 *dst;
	const u32 *src;
	const int *rows, *lens;
	s64 dst_off, src_off, dst_stride[4], src_stride[4], outer[4], inner[4], n;
	int rows_dst, row_dim, time_dim, acc;
};
KERNEL(permute, permute_args) {
	EACH(k, a.n) {
		s64 at[4], rest = k, i[4];
		for (int d = 3; d >= 0; d--) {
			at[d] = rest % a.outer[d];
			rest /= a.outer[d];
		}
		for (s64 i0 = 0; i0 < a.inner[0]; i0++)
			for (s64 i1 = 0; i1 < a.inner[1]; i1++)
				for (s64 i2 = 0; i2 < a.inner[2]; i2++)
					for (s64 i3 = 0; i3 < a.inner[3]; i3++) {
						i[0] = at[0] + i0, i[1] = at[1] + i1, i[2] = at[2] + i2, i[3] = at[3] + i3;
						s64 src = a.src_off, dst = a.dst_off;
						for (int d = 0; d < 4; d++) {
							s64 row = a.rows && d == a.row_dim ? a.rows[i[d]] : i[d];
							src += (a.rows_dst ? i[d] : row) * a.src_stride[d];
							dst += (a.rows_dst ? row : i[d]) * a.dst_stride[d];
						}
						bool inside = !a.lens || i[a.time_dim] < a.lens[i[a.row_dim]];
						if (!a.acc)
							a.dst[dst] = inside ? a.src[src] : 0;
						else if (inside)
							a.dst[dst] = __float_as_uint(__uint_as_float(a.dst[dst]) + __uint_as_float(a.src[src]));
					}
	}
}

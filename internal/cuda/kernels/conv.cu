// Convolutions are products of the patches of the input that outputs read, one row for each
// place of the output, times the weights. A patch is in the order [I,H.Kernel,W.Kernel] of the
// weights, in which a group of channels is one piece; the gradient of a patch is [group,
// H.Kernel,W.Kernel,I/Groups], so that the threads that add it to the input read side by side.
struct conv_window {
	int in, out, kernel, stride, dilation, before;
};
struct conv_args {
	const float *x, *weight, *bias; // [B,H.in,W.in,I], [O,I/Groups,H.kernel,W.kernel], [O] or absent
	const float *dy;                // [B,H.out,W.out,O]
	float *y, *dx, *dweight;
	const int *lens; // [B] or absent
	float *patch;    // of places from first on
	float *turned;   // weights [O,H.kernel,W.kernel,I/Groups]
	float *part;     // [chunks,O,H.kernel,W.kernel] sums of places
	s64 first, places; // of this launch; in kernels with blocks [.,image], first is an image
	int B, I, O, groups;
	conv_window H, W;
	int lanes; // threads for a place, a power of two
	int acc;
};

// conv_rows is the number of rows of an image that are no padding.
DEVICE int conv_rows(const conv_args &a, int image) { return a.lens ? a.lens[image] : a.H.in; }

// conv_reader returns which output reads input i by tap j, or -1.
DEVICE int conv_reader(const conv_window &w, int i, int j) {
	int at = i + w.before - j * w.dilation;
	if (at < 0 || at % w.stride)
		return -1;
	at /= w.stride;
	return at < w.out ? at : -1;
}

// conv_patches copies patches.
KERNEL(conv_patches, conv_args) {
	int lane = threadIdx.x % a.lanes, taps = a.H.kernel * a.W.kernel, size = a.I * taps;
	s64 place = ((s64)blockIdx.x * blockDim.x + threadIdx.x) / a.lanes;
	if (place >= a.places)
		return;
	float *patch = a.patch + place * size;
	place += a.first;
	int w0 = place % a.W.out;
	place /= a.W.out;
	int h0 = place % a.H.out, image = place / a.H.out, rows = conv_rows(a, image);
	h0 = h0 * a.H.stride - a.H.before;
	w0 = w0 * a.W.stride - a.W.before;
	const float *x = a.x + (s64)image * a.H.in * a.W.in * a.I;
	// Element e of the patch is that of channel i and tap (j,k).
	int i = lane / taps, j = lane % taps / a.W.kernel, k = lane % a.W.kernel;
	int step_i = a.lanes / taps, step_j = a.lanes % taps / a.W.kernel, step_k = a.lanes % taps % a.W.kernel;
	for (int e = lane; e < size; e += a.lanes) {
		int h = h0 + j * a.H.dilation, w = w0 + k * a.W.dilation;
		patch[e] = h >= 0 && h < rows && w >= 0 && w < a.W.in ? x[((s64)h * a.W.in + w) * a.I + i] : 0;
		k += step_k;
		j += step_j;
		i += step_i;
		if (k >= a.W.kernel) {
			k -= a.W.kernel;
			j++;
		}
		if (j >= a.H.kernel) {
			j -= a.H.kernel;
			i++;
		}
	}
}

// conv_residual replaces each row of a patch's group by what rounding to 8 bits leaves of it, a
// warp each: see Bytes of package simd.
KERNEL(conv_residual, conv_args) {
	int lane = threadIdx.x % WARP, depth = a.I / a.groups * a.H.kernel * a.W.kernel;
	s64 row = (s64)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
	if (row >= a.places * a.groups)
		return;
	float *x = a.patch + row * depth;
	int top = 0; // the order of magnitudes is that of their bits, NaN last
	for (int k = lane; k < depth; k += WARP)
		top = max(top, __float_as_int(fabsf(x[k])));
	top = warp_max(top);
	float greatest = __int_as_float(top);
	if (greatest < 0x1p-100f)
		return; // rounds to zeros, twice
	float scale = greatest / 127, by = 127 / greatest;
	for (int k = lane; k < depth; k += WARP)
		x[k] = greatest < INFINITY ? __fsub_rn(x[k], __fmul_rn(rintf(__fmul_rn(x[k], by)), scale)) : NAN;
}

// conv_turn transposes the weights of each output.
KERNEL(conv_turn, conv_args) {
	int taps = a.H.kernel * a.W.kernel, n = a.I / a.groups;
	EACH(i, (s64)a.O * taps * n) {
		s64 o = i / (taps * n);
		int tap = i / n % taps, c = i % n;
		a.turned[i] = a.weight[(o * n + c) * taps + tap];
	}
}

// conv_gather adds the gradients of patches to the inputs: blocks [.,image].
KERNEL(conv_gather, conv_args) {
	int image = a.first + blockIdx.y, n = a.I / a.groups, taps = a.H.kernel * a.W.kernel, size = a.H.in * a.W.in * a.I;
	int rows = conv_rows(a, image);
	float *dx = a.dx + (s64)image * size;
	const float *patch = a.patch + (s64)blockIdx.y * a.H.out * a.W.out * a.I * taps;
	EACH(at, size) {
		int c = at % a.I, w = (int)at / a.I % a.W.in, h = (int)at / a.I / a.W.in;
		s64 from = (s64)(c / n) * taps * n + c % n;
		float sum = a.acc ? dx[at] : 0;
		for (int j = 0; j < a.H.kernel && h < rows; j++) {
			int y = conv_reader(a.H, h, j);
			if (y < 0)
				continue;
			for (int k = 0; k < a.W.kernel; k++) {
				int x = conv_reader(a.W, w, k);
				if (x >= 0)
					sum += patch[((s64)y * a.W.out + x) * a.I * taps + from + (j * a.W.kernel + k) * n];
			}
		}
		dx[at] = sum;
	}
}

// If each group has one channel in and one out, a product of its own would be empty. These have a
// thread for each number of an image: blocks [.,image].
KERNEL(conv_alone, conv_args) {
	int image = a.first + blockIdx.y, taps = a.H.kernel * a.W.kernel, size = a.H.out * a.W.out * a.O;
	int rows = conv_rows(a, image);
	const float *x = a.x + (s64)image * a.H.in * a.W.in * a.O;
	EACH(at, size) {
		int c = at % a.O, left = (int)at / a.O % a.W.out, top = (int)at / a.O / a.W.out;
		left = left * a.W.stride - a.W.before;
		top = top * a.H.stride - a.H.before;
		float sum = a.bias ? a.bias[c] : 0;
		for (int j = 0; j < a.H.kernel; j++) {
			int h = top + j * a.H.dilation;
			if (h < 0 || h >= rows)
				continue;
			for (int k = 0; k < a.W.kernel; k++) {
				int w = left + k * a.W.dilation;
				if (w >= 0 && w < a.W.in)
					sum = fmaf(x[((s64)h * a.W.in + w) * a.O + c], a.weight[(s64)c * taps + j * a.W.kernel + k], sum);
			}
		}
		a.y[(s64)image * size + at] = sum;
	}
}
KERNEL(conv_alone_dx, conv_args) {
	int image = a.first + blockIdx.y, taps = a.H.kernel * a.W.kernel, size = a.H.in * a.W.in * a.O;
	int rows = conv_rows(a, image);
	const float *dy = a.dy + (s64)image * a.H.out * a.W.out * a.O;
	float *dx = a.dx + (s64)image * size;
	EACH(at, size) {
		int c = at % a.O, w = (int)at / a.O % a.W.in, h = (int)at / a.O / a.W.in;
		float sum = a.acc ? dx[at] : 0;
		for (int j = 0; j < a.H.kernel && h < rows; j++) {
			int y = conv_reader(a.H, h, j);
			if (y < 0)
				continue;
			for (int k = 0; k < a.W.kernel; k++) {
				int x = conv_reader(a.W, w, k);
				if (x >= 0)
					sum = fmaf(dy[((s64)y * a.W.out + x) * a.O + c], a.weight[(s64)c * taps + j * a.W.kernel + k], sum);
			}
		}
		dx[at] = sum;
	}
}

// conv_alone_dw: blocks [32 channels, tap, chunk of places]. A warp sums every eighth place.
#define CONV_CHUNK 4096 // convChunk of conv.go
KERNEL(conv_alone_dw, conv_args) {
	SHARED(float, sums); // [BLOCK]
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
	int c = blockIdx.x * WARP + lane, tap = blockIdx.y, taps = a.H.kernel * a.W.kernel;
	int j = tap / a.W.kernel * a.H.dilation - a.H.before, k = tap % a.W.kernel * a.W.dilation - a.W.before;
	s64 from = (s64)blockIdx.z * CONV_CHUNK, to = min(from + CONV_CHUNK, a.places);
	float sum = 0;
	if (c < a.O)
		for (s64 p = from + warp; p < to; p += warps) {
			int w = p % a.W.out * a.W.stride + k, image = p / a.W.out / a.H.out, h = p / a.W.out % a.H.out * a.H.stride + j;
			if (h >= 0 && h < conv_rows(a, image) && w >= 0 && w < a.W.in)
				sum = fmaf(a.x[(((s64)image * a.H.in + h) * a.W.in + w) * a.O + c], a.dy[p * a.O + c], sum);
		}
	sums[threadIdx.x] = sum;
	sync_block();
	if (warp == 0 && c < a.O) {
		for (int i = 1; i < warps; i++)
			sum += sums[i * WARP + lane];
		a.part[((s64)blockIdx.z * a.O + c) * taps + tap] = sum;
	}
}
KERNEL(conv_alone_sum, conv_args) {
	s64 size = (s64)a.O * a.H.kernel * a.W.kernel, chunks = (a.places + CONV_CHUNK - 1) / CONV_CHUNK;
	EACH(i, size) {
		float sum = 0;
		for (s64 chunk = 0; chunk < chunks; chunk++)
			sum += a.part[chunk * size + i];
		a.dweight[i] += sum;
	}
}

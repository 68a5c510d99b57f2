// A stand-in for the recurrent layers of cuDNN 9, for tests of package cuda: the functions that
// it binds, with cudnn_adv.h's signatures. It computes naively, in double precision, on the
// memory of the emulated device and in the order of its streams.
//
// It is as strict as it may be. Weights lie with gaps between them, of every second layer in
// another order; the work space is filled with NaNs, before and after; a descriptor is looked at
// when a call is made only; and what is done in a wrong order gives NaNs.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Status { success = 0, bad_param = 2000, not_supported = 3000, execution_failed = 5000 };
enum { relu, tanh_, lstm, gru };
const size_t gap = 64, header = 16;

std::string last_error;
std::atomic<int> passes[4];        // forward passes of each algorithm
std::atomic<int> supported{1};     // a bit for each algorithm
int (*launch_host)(void *stream, void (*)(void *), void *);

int fail(int status, const char *text) {
	last_error = text;
	return status;
}

struct Handle {
	void *stream;
};
struct Tensor {
	int kind, n, dims[8], strides[8];
};
struct Dropout {
	float p = -1;
};
struct Data {
	int kind, layout, T, B, width;
	std::vector<int> lengths;
	double fill;
};
struct Rnn {
	int algo, cell, bias, bidirectional, input_mode, kind, precision, math, I, H, O, layers;
	Dropout *dropout;
	unsigned flags;
	int rows = 0; // of cudnnBuildRNNDynamic

	int dirs() const { return bidirectional + 1; }
	int gates() const { return cell == lstm ? 4 : cell == gru ? 3 : 1; }
	int in(int layer) const { return layer ? dirs() * O : I; }
	size_t size() const { return kind == 0 ? 4 : 2; }
};

double load(int kind, const void *p, size_t i) {
	if (kind == 0)
		return ((const float *)p)[i];
	uint16_t h = ((const uint16_t *)p)[i];
	if (kind == 9) {
		uint32_t u = (uint32_t)h << 16;
		float f;
		memcpy(&f, &u, 4);
		return f;
	}
	int e = h >> 10 & 31, m = h & 1023;
	double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
	return h >> 15 ? -v : v;
}
// round_to is v in so many bits of significand, and at least in units of 2^least.
double round_to(double v, int digits, int least) {
	int e;
	if (!isfinite(v) || v == 0)
		return v;
	frexp(v, &e);
	int unit = e - digits < least ? least : e - digits;
	return ldexp(nearbyint(ldexp(v, -unit)), unit);
}
double rounded(int kind, double v) {
	return kind == 0 ? (float)v : kind == 9 ? round_to(v, 8, -133) : round_to(v, 11, -24);
}
void store(int kind, void *p, size_t i, double v) {
	v = rounded(kind, v);
	if (kind == 0) {
		((float *)p)[i] = v;
		return;
	}
	uint16_t h;
	if (kind == 9) {
		float f = v;
		uint32_t u;
		memcpy(&u, &f, 4);
		h = u >> 16;
	} else if (v != v)
		h = 0x7fff;
	else {
		double a = fabs(v);
		int e;
		frexp(a, &e);
		h = a >= 65536 ? 0x7c00 : a < ldexp(1, -14) ? (uint16_t)ldexp(a, 24) : (uint16_t)(((e + 14) << 10) + (int)(ldexp(a, 11 - e) - 1024));
		h |= v < 0 ? 0x8000 : 0;
	}
	((uint16_t *)p)[i] = h;
}

// Weights: the byte of each parameter. ID is as in cudnnGetRNNWeightParams.
struct Place {
	size_t matrix, vector;
	int rows, cols;
};
struct Places {
	std::vector<std::vector<Place>> of; // by pseudo-layer and ID
	size_t bytes = 0;
};
Places places_of(const Rnn &r) {
	Places p;
	p.bytes = gap;
	for (int k = 0; k < r.layers * r.dirs(); k++) {
		int G = r.gates(), n = 2 * G;
		std::vector<Place> of(9, Place{0, 0, 0, 0});
		std::vector<int> order;
		for (int i = 0; i < n; i++)
			order.push_back(k % 2 ? i : n - 1 - i);
		if (r.O != r.H)
			order.push_back(8);
		size_t apart = k % 2 ? 0 : gap << r.algo;
		for (int id : order) {
			of[id].rows = id == 8 ? r.O : r.H;
			of[id].cols = id == 8 ? r.H : id < G ? r.in(k / r.dirs()) : r.O;
			of[id].matrix = p.bytes;
			p.bytes += of[id].rows * of[id].cols * r.size() + apart;
		}
		for (int id : order)
			if (id != 8 && r.bias) {
				of[id].vector = p.bytes;
				p.bytes += r.H * r.size() + apart;
			}
		p.bytes = (p.bytes + gap) & ~(size_t)15;
		p.of.push_back(of);
	}
	return p;
}

// Pass is a call with all that it needs, taken from its descriptors.
struct Pass {
	Rnn r;
	Places places;
	Data x, y;
	bool train;
	const void *x_at = nullptr, *hx = nullptr, *cx = nullptr, *w = nullptr, *dy = nullptr, *dhy = nullptr, *dcy = nullptr;
	void *y_at = nullptr, *hy = nullptr, *cy = nullptr, *dx = nullptr, *dhx = nullptr, *dcx = nullptr, *dw = nullptr;
	void *work = nullptr, *reserve = nullptr;
	size_t work_bytes = 0, reserve_bytes = 0;

	// The reserve: for each scan, step and row the gates and then their gradients, the state
	// beside h or the side of a GRU and then its gradient, h before a projection, and the
	// gradient of h; and each layer's outputs.
	static size_t width_of(const Rnn &r) { return (r.gates() + 2) * r.H + r.O; }
	double *state(int scan, int t, int b) const {
		return (double *)reserve + header + (((size_t)scan * x.T + t) * x.B + b) * width_of(r);
	}
	double *out(int layer, int t, int b) const {
		int scans = r.layers * r.dirs();
		double *all = (double *)reserve + header + (size_t)scans * x.T * x.B * width_of(r);
		return all + (((size_t)layer * x.T + t) * x.B + b) * r.dirs() * r.O;
	}
	static size_t reserve_of(const Rnn &r, const Data &x) {
		return 8 * (header + (size_t)x.T * x.B * r.layers * r.dirs() * (width_of(r) + r.O));
	}
	size_t row(const Data &d, int t, int b) const { return d.layout == 2 ? (size_t)b * d.T + t : (size_t)t * d.B + b; }

	double in(int layer, int t, int b, int i) const {
		return layer ? out(layer - 1, t, b)[i] : load(r.kind, x_at, row(x, t, b) * r.I + i);
	}
	double matrix(int k, int id, int i, int j) const {
		const Place &p = places.of[k][id];
		return load(r.kind, (const char *)w + p.matrix, (size_t)i * p.cols + j);
	}
	double bias(int k, int id, int i) const { return r.bias ? load(r.kind, (const char *)w + places.of[k][id].vector, i) : 0; }
	double h_before(int k, int t, int b, int j) const { // t: the step, in the scan's direction
		int layer = k / r.dirs(), dir = k % r.dirs(), prev = dir ? t + 1 : t - 1;
		if (prev < 0 || prev >= x.lengths[b])
			return hx ? load(r.kind, hx, ((size_t)k * x.B + b) * r.O + j) : 0;
		if (layer == r.layers - 1 && dy) // the caller's y, in a backward pass
			return load(r.kind, y_at, row(y, prev, b) * r.dirs() * r.O + dir * r.O + j);
		return out(layer, prev, b)[dir * r.O + j];
	}
	double c_before(int k, int t, int b, int j) const {
		int prev = k % r.dirs() ? t + 1 : t - 1;
		if (prev < 0 || prev >= x.lengths[b])
			return cx ? load(r.kind, cx, ((size_t)k * x.B + b) * r.H + j) : 0;
		return state(k, prev, b)[r.gates() * r.H + j];
	}

	void forward();
	void backward_data();
	void backward_weights();
	void ruin_work() { memset(work, 0xff, work_bytes); }
};

double logistic(double v) { return 1 / (1 + exp(-v)); }

void Pass::forward() {
	int G = r.gates(), H = r.H, O = r.O, D = r.dirs();
	std::vector<char> own;
	if (!train) {
		own.resize(reserve_of(r, x));
		reserve = own.data();
	}
	ruin_work();
	*(double *)reserve = 1;
	for (int k = 0; k < r.layers * D; k++)
		for (int b = 0; b < x.B; b++) {
			int layer = k / D, dir = k % D, n = x.lengths[b];
			for (int step = 0; step < n; step++) {
				int t = dir ? n - 1 - step : step;
				double *gates = state(k, t, b), *beside = gates + G * H, *hidden = beside + H, *y = out(layer, t, b) + dir * O;
				std::vector<double> a(G * H), u(G * H), h(O);
				for (int j = 0; j < O; j++)
					h[j] = h_before(k, t, b, j);
				for (int g = 0; g < G; g++)
					for (int j = 0; j < H; j++) {
						a[g * H + j] = bias(k, g, j), u[g * H + j] = bias(k, G + g, j);
						for (int i = 0; i < r.in(layer); i++)
							a[g * H + j] += matrix(k, g, j, i) * in(layer, t, b, i);
						for (int i = 0; i < O; i++)
							u[g * H + j] += matrix(k, G + g, j, i) * h[i];
					}
				for (int j = 0; j < H; j++) {
					auto pre = [&](int g) { return a[g * H + j] + u[g * H + j]; };
					switch (r.cell) {
					case lstm: {
						double i = gates[j] = logistic(pre(0)), f = gates[H + j] = logistic(pre(1));
						double g = gates[2 * H + j] = tanh(pre(2)), o = gates[3 * H + j] = logistic(pre(3));
						beside[j] = f * c_before(k, t, b, j) + i * g;
						hidden[j] = o * tanh(beside[j]);
						break;
					}
					case gru: {
						double rr = gates[j] = logistic(pre(0)), z = gates[H + j] = logistic(pre(1));
						beside[j] = u[2 * H + j];
						double nn = gates[2 * H + j] = tanh(a[2 * H + j] + rr * u[2 * H + j]);
						hidden[j] = (1 - z) * nn + z * h[j];
						break;
					}
					case tanh_:
						hidden[j] = gates[j] = tanh(pre(0));
						break;
					default:
						hidden[j] = gates[j] = pre(0) > 0 ? pre(0) : 0;
					}
				}
				for (int j = 0; j < O; j++) {
					y[j] = hidden[j];
					if (O != H) {
						y[j] = 0;
						for (int i = 0; i < H; i++)
							y[j] += matrix(k, 8, j, i) * hidden[i];
					}
					y[j] = rounded(r.kind, y[j]);
				}
			}
			int end = dir ? 0 : n - 1;
			for (int j = 0; j < O && hy; j++)
				store(r.kind, hy, ((size_t)k * x.B + b) * O + j, out(layer, end, b)[dir * O + j]);
			for (int j = 0; j < H && cy && r.cell == lstm; j++)
				store(r.kind, cy, ((size_t)k * x.B + b) * H + j, state(k, end, b)[G * H + j]);
		}
	for (int t = 0; t < x.T; t++)
		for (int b = 0; b < x.B; b++)
			for (int j = 0; j < D * O; j++)
				store(r.kind, y_at, row(y, t, b) * D * O + j, t < x.lengths[b] ? out(r.layers - 1, t, b)[j] : y.fill);
	ruin_work();
}

void Pass::backward_data() {
	int G = r.gates(), H = r.H, O = r.O, D = r.dirs();
	ruin_work();
	double *phase = (double *)reserve;
	if (*phase != 1) {
		*phase = 0;
		memset(dx, 0xff, (size_t)x.T * x.B * r.I * r.size());
		return;
	}
	*phase = 2;
	std::vector<double> above((size_t)x.T * x.B * D * O); // gradients of a layer's outputs
	for (int t = 0; t < x.T; t++)
		for (int b = 0; b < x.B; b++)
			for (int j = 0; j < D * O && t < x.lengths[b]; j++)
				above[((size_t)t * x.B + b) * D * O + j] = load(r.kind, dy, row(y, t, b) * D * O + j);
	for (int layer = r.layers - 1; layer >= 0; layer--) {
		int width = r.in(layer);
		std::vector<double> below((size_t)x.T * x.B * width);
		for (int dir = 0; dir < D; dir++)
			for (int b = 0; b < x.B; b++) {
				int k = layer * D + dir, n = x.lengths[b];
				std::vector<double> dh(O), dc(H);
				for (int j = 0; j < O && dhy; j++)
					dh[j] = load(r.kind, dhy, ((size_t)k * x.B + b) * O + j);
				for (int j = 0; j < H && dcy && r.cell == lstm; j++)
					dc[j] = load(r.kind, dcy, ((size_t)k * x.B + b) * H + j);
				for (int step = n - 1; step >= 0; step--) {
					int t = dir ? n - 1 - step : step;
					double *gates = state(k, t, b), *beside = gates + G * H, *hidden = beside + H;
					std::vector<double> dhidden(H), direct(O);
					for (int j = 0; j < O; j++)
						dh[j] += above[((size_t)t * x.B + b) * D * O + dir * O + j];
					for (int j = 0; j < H; j++) {
						dhidden[j] = O == H ? dh[j] : 0;
						for (int i = 0; i < O && O != H; i++)
							dhidden[j] += matrix(k, 8, i, j) * dh[i];
					}
					std::vector<double> da(G * H), du(G * H);
					for (int j = 0; j < H; j++) {
						double d = dhidden[j];
						switch (r.cell) {
						case lstm: {
							double i = gates[j], f = gates[H + j], g = gates[2 * H + j], o = gates[3 * H + j], c = tanh(beside[j]);
							double e = dc[j] + d * o * (1 - c * c);
							da[j] = e * g * i * (1 - i), da[H + j] = e * c_before(k, t, b, j) * f * (1 - f);
							da[2 * H + j] = e * i * (1 - g * g), da[3 * H + j] = d * c * o * (1 - o);
							dc[j] = e * f;
							break;
						}
						case gru: {
							double rr = gates[j], z = gates[H + j], nn = gates[2 * H + j];
							da[2 * H + j] = d * (1 - z) * (1 - nn * nn);
							da[H + j] = d * (h_before(k, t, b, j) - nn) * z * (1 - z);
							da[j] = da[2 * H + j] * beside[j] * rr * (1 - rr);
							direct[j] = d * z;
							break;
						}
						case tanh_:
							da[j] = d * (1 - gates[j] * gates[j]);
							break;
						default:
							da[j] = gates[j] > 0 ? d : 0;
						}
					}
					du = da;
					for (int j = 0; j < H && r.cell == gru; j++)
						du[2 * H + j] *= gates[j];
					for (int i = 0; i < width; i++)
						for (int g = 0; g < G * H; g++)
							below[((size_t)t * x.B + b) * width + i] += matrix(k, g / H, g % H, i) * da[g];
					std::vector<double> next = direct;
					for (int i = 0; i < O; i++)
						for (int g = 0; g < G * H; g++)
							next[i] += matrix(k, G + g / H, g % H, i) * du[g];
					// What the gradients of the weights need, in the places of what they do not.
					for (int j = 0; j < H && r.cell == gru; j++)
						beside[j] = du[2 * H + j];
					memcpy(gates, da.data(), 8 * G * H);
					memcpy(hidden + H, dh.data(), 8 * O);
					dh = next;
				}
				for (int j = 0; j < O && dhx; j++)
					store(r.kind, dhx, ((size_t)k * x.B + b) * O + j, dh[j]);
				for (int j = 0; j < H && dcx && r.cell == lstm; j++)
					store(r.kind, dcx, ((size_t)k * x.B + b) * H + j, dc[j]);
			}
		above = below;
	}
	for (int t = 0; t < x.T; t++) // outside of sequences nothing is written
		for (int b = 0; b < x.B; b++)
			for (int i = 0; i < r.I && t < x.lengths[b]; i++)
				store(r.kind, dx, row(x, t, b) * r.I + i, above[((size_t)t * x.B + b) * r.I + i]);
	ruin_work();
}

void Pass::backward_weights() {
	int G = r.gates(), H = r.H, O = r.O, D = r.dirs();
	ruin_work();
	if (*(double *)reserve != 2) {
		memset(dw, 0xff, places.bytes);
		return;
	}
	for (int k = 0; k < r.layers * D; k++) {
		std::vector<std::vector<double>> matrices(9), vectors(9);
		for (int id = 0; id < 9; id++)
			matrices[id].resize(places.of[k][id].rows * places.of[k][id].cols), vectors[id].resize(places.of[k][id].rows);
		for (int b = 0; b < x.B; b++)
			for (int t = 0; t < x.lengths[b]; t++) {
				const double *d = state(k, t, b), *hidden = d + (G + 1) * H, *dh = hidden + H;
				for (int g = 0; g < G; g++)
					for (int j = 0; j < H; j++) {
						double da = d[g * H + j], du = r.cell == gru && g == 2 ? d[G * H + j] : da;
						for (int i = 0; i < r.in(k / D); i++)
							matrices[g][j * r.in(k / D) + i] += da * in(k / D, t, b, i);
						for (int i = 0; i < O; i++)
							matrices[G + g][j * O + i] += du * h_before(k, t, b, i);
						vectors[g][j] += da, vectors[G + g][j] += du;
					}
				for (int i = 0; i < O && O != H; i++)
					for (int j = 0; j < H; j++)
						matrices[8][i * H + j] += dh[i] * hidden[j];
			}
		auto add = [&](size_t at, const std::vector<double> &v) {
			for (size_t i = 0; i < v.size() && at; i++)
				store(r.kind, (char *)dw + at, i, load(r.kind, (char *)dw + at, i) + v[i]);
		};
		for (int id = 0; id < 9; id++)
			add(places.of[k][id].matrix, matrices[id]), add(places.of[k][id].vector, vectors[id]);
	}
	ruin_work();
}

// enqueue does work in the order of the handle's stream. What it needs is not freed: a graph may
// do it again.
int enqueue(Handle *h, std::function<void()> work) {
	auto kept = new std::function<void()>(std::move(work));
	return launch_host(h->stream, [](void *f) { (*(std::function<void()> *)f)(); }, kept) ? fail(execution_failed, "the stream") : success;
}

size_t work_of(const Rnn &r, const Data &x) { return 1024 + 8 * x.B * r.H; }

// check looks at what all passes share, and copies it.
int check(Handle *h, Rnn *r, const int *lengths, Data *x, Data *y, Tensor *ht, Tensor *ct, const void *c, size_t weights, size_t work_bytes, void *work, size_t reserve_bytes,
		  void *reserve, bool train, Pass *p) {
	if (!h || !r || !x || !y || !ht || !ct)
		return fail(bad_param, "a descriptor is absent");
	if (lengths)
		return fail(bad_param, "lengths on the device are of descriptors by now");
	p->r = *r, p->x = *x, p->y = *y, p->train = train, p->places = places_of(*r);
	if (x->kind != r->kind || y->kind != r->kind || x->T != y->T || x->B != y->B || x->layout != y->layout || x->lengths != y->lengths || x->width != r->I || y->width != r->dirs() * r->O)
		return fail(bad_param, "sequences do not fit the layer");
	int dims[2][3] = {{r->layers * r->dirs(), x->B, r->O}, {r->layers * r->dirs(), x->B, r->H}};
	Tensor *t[2] = {ht, ct};
	for (int i = 0; i < 2; i++) {
		int dense[3] = {dims[i][1] * dims[i][2], dims[i][2], 1};
		if (t[i]->n != 3 || t[i]->kind != r->kind || memcmp(t[i]->dims, dims[i], sizeof dims[i]) || memcmp(t[i]->strides, dense, sizeof dense))
			return fail(bad_param, "states do not fit the layer");
	}
	if (c && r->cell != lstm)
		return fail(bad_param, "the cell has no c");
	bool ragged = false;
	for (int n : x->lengths) {
		ragged = ragged || n != x->T;
		if (n < 1)
			return fail(bad_param, "a row without steps");
	}
	if (ragged && (r->algo || !(r->flags & 1)))
		return fail(not_supported, "lengths");
	if (r->algo == 2 && r->rows != x->B)
		return fail(bad_param, "cudnnBuildRNNDynamic was for other rows");
	if (weights != p->places.bytes || work_bytes < work_of(*r, *x) || reserve_bytes < (train ? Pass::reserve_of(*r, *x) : 0) || !work || (train && !reserve))
		return fail(bad_param, "memory is too short");
	if ((uintptr_t)work % 256 || (uintptr_t)reserve % 256)
		return fail(bad_param, "memory is not aligned");
	p->work = work, p->work_bytes = work_bytes, p->reserve = reserve, p->reserve_bytes = reserve_bytes;
	return success;
}
} // namespace

// emulator_dnn connects the stand-in with an emulated driver's cuLaunchHostFunc.
EXPORT void emulator_dnn(int (*launch)(void *, void (*)(void *), void *)) { launch_host = launch; }
// emulator_dnn_support sets which algorithms there are, a bit each.
EXPORT void emulator_dnn_support(int bits) { supported = bits; }
// emulator_dnn_passes returns how many forward passes an algorithm has done since the last call.
EXPORT int emulator_dnn_passes(int algo) { return passes[algo].exchange(0); }

EXPORT size_t cudnnGetVersion() { return 90100; }
EXPORT size_t cudnnGetCudartVersion() { return 13000; }
EXPORT const char *cudnnGetErrorString(int status) { return status == success ? "SUCCESS" : status == bad_param ? "BAD_PARAM" : status == not_supported ? "NOT_SUPPORTED" : "EXECUTION_FAILED"; }
EXPORT void cudnnGetLastErrorString(char *text, size_t bytes) { snprintf(text, bytes, "%s", last_error.c_str()); }
EXPORT int cudnnCreate(Handle **h) { return *h = new Handle{nullptr}, success; }
EXPORT int cudnnSetStream(Handle *h, void *stream) { return h->stream = stream, success; }

EXPORT int cudnnCreateTensorDescriptor(Tensor **t) { return *t = new Tensor{}, success; }
EXPORT int cudnnDestroyTensorDescriptor(Tensor *t) { return delete t, success; }
EXPORT int cudnnSetTensorNdDescriptor(Tensor *t, int kind, int n, const int *dims, const int *strides) {
	if (n < 3 || n > 8)
		return fail(bad_param, "dimensions");
	t->kind = kind, t->n = n;
	for (int i = 0; i < n; i++)
		t->dims[i] = dims[i], t->strides[i] = strides[i];
	return success;
}
EXPORT int cudnnGetTensorNdDescriptor(Tensor *t, int, int *kind, int *n, int *dims, int *strides) {
	*kind = t->kind, *n = t->n;
	for (int i = 0; i < t->n; i++)
		dims[i] = t->dims[i], strides[i] = t->strides[i];
	return success;
}
EXPORT int cudnnCreateDropoutDescriptor(Dropout **d) { return *d = new Dropout, success; }
EXPORT int cudnnSetDropoutDescriptor(Dropout *d, Handle *h, float p, void *states, size_t bytes, unsigned long long) {
	if (!h || p < 0 || p > 1 || (p > 0 && (!states || !bytes)))
		return fail(bad_param, "dropout");
	return d->p = p, success;
}

EXPORT int cudnnCreateRNNDescriptor(Rnn **r) { return *r = new Rnn{}, success; }
EXPORT int cudnnDestroyRNNDescriptor(Rnn *r) { return delete r, success; }
EXPORT int cudnnSetRNNDescriptor_v8(Rnn *r, int algo, int cell, int bias, int direction, int input_mode, int kind, int precision, int math, int32_t I, int32_t H, int32_t O, int32_t layers,
									Dropout *dropout, uint32_t flags) {
	if (cell < 0 || cell > 3 || (bias != 0 && bias != 2) || direction < 0 || direction > 1 || input_mode || precision || I < 1 || H < 1 || O < 1 || O > H || layers < 1 || !dropout || dropout->p != 0)
		return fail(bad_param, "the layer");
	if ((kind != 0 && kind != 2 && kind != 9) || (kind == 0) != (math == 0 || math == 3) || (O != H && cell != lstm))
		return fail(not_supported, "the layer");
	if (!(supported >> algo & 1) || (algo && (O != H || bias != 2)))
		return fail(not_supported, "the algorithm");
	r->algo = algo, r->cell = cell, r->bias = bias, r->bidirectional = direction, r->input_mode = input_mode, r->kind = kind, r->precision = precision, r->math = math;
	r->I = I, r->H = H, r->O = O, r->layers = layers, r->dropout = dropout, r->flags = flags;
	return success;
}
EXPORT int cudnnBuildRNNDynamic(Handle *, Rnn *r, int rows) {
	if (r->algo != 2)
		return fail(bad_param, "not the dynamic algorithm");
	return r->rows = rows, success;
}

EXPORT int cudnnCreateRNNDataDescriptor(Data **d) { return *d = new Data{}, success; }
EXPORT int cudnnDestroyRNNDataDescriptor(Data *d) { return *d = Data{}, delete d, success; }
EXPORT int cudnnSetRNNDataDescriptor(Data *d, int kind, int layout, int T, int B, int width, const int *lengths, void *fill) {
	if ((layout != 0 && layout != 2) || T < 1 || B < 1 || width < 1 || !fill)
		return fail(bad_param, "a sequence");
	for (int b = 0; b < B; b++)
		if (lengths[b] < 0 || lengths[b] > T)
			return fail(bad_param, "a length");
	d->kind = kind, d->layout = layout, d->T = T, d->B = B, d->width = width, d->fill = load(kind, fill, 0);
	d->lengths.assign(lengths, lengths + B);
	return success;
}

EXPORT int cudnnGetRNNTempSpaceSizes(Handle *, Rnn *r, int mode, Data *x, size_t *work, size_t *reserve) {
	*work = work_of(*r, *x);
	*reserve = mode ? Pass::reserve_of(*r, *x) : 0;
	return success;
}
EXPORT int cudnnGetRNNWeightSpaceSize(Handle *, Rnn *r, size_t *bytes) { return *bytes = places_of(*r).bytes, success; }
EXPORT int cudnnGetRNNWeightParams(Handle *, Rnn *r, int32_t layer, size_t bytes, const char *w, int32_t id, Tensor *m, char **matrix, Tensor *v, char **vector) {
	Places p = places_of(*r);
	if (layer < 0 || layer >= (int)p.of.size() || id < 0 || id > 8 || bytes != p.bytes || !w)
		return fail(bad_param, "a parameter");
	const Place &at = p.of[layer][id];
	int dims[3] = {1, at.rows, at.cols}, strides[3] = {at.rows * at.cols, at.cols, 1};
	cudnnSetTensorNdDescriptor(m, r->kind, 3, dims, strides);
	dims[2] = 1, strides[0] = at.rows, strides[1] = 1;
	cudnnSetTensorNdDescriptor(v, r->kind, 3, dims, strides);
	*matrix = at.matrix ? (char *)w + at.matrix : nullptr;
	*vector = at.vector ? (char *)w + at.vector : nullptr;
	return success;
}

EXPORT int cudnnRNNForward(Handle *h, Rnn *r, int mode, const int32_t *lengths, Data *xd, const void *x, Data *yd, void *y, Tensor *hd, const void *hx, void *hy, Tensor *cd, const void *cx, void *cy,
						   size_t weights, const void *w, size_t work_bytes, void *work, size_t reserve_bytes, void *reserve) {
	auto p = std::make_shared<Pass>();
	if (int status = check(h, r, lengths, xd, yd, hd, cd, cx ? cx : cy, weights, work_bytes, work, reserve_bytes, reserve, mode, p.get()))
		return status;
	if (!x || !y || !w)
		return fail(bad_param, "an operand is absent");
	p->x_at = x, p->y_at = y, p->hx = hx, p->hy = hy, p->cx = cx, p->cy = cy, p->w = w;
	passes[r->algo]++;
	return enqueue(h, [p] { p->forward(); });
}
EXPORT int cudnnRNNBackwardData_v8(Handle *h, Rnn *r, const int32_t *lengths, Data *yd, const void *y, const void *dy, Data *xd, void *dx, Tensor *hd, const void *hx, const void *dhy, void *dhx, Tensor *cd,
								   const void *cx, const void *dcy, void *dcx, size_t weights, const void *w, size_t work_bytes, void *work, size_t reserve_bytes, void *reserve) {
	auto p = std::make_shared<Pass>();
	if (int status = check(h, r, lengths, xd, yd, hd, cd, cx ? cx : dcy ? dcy : dcx, weights, work_bytes, work, reserve_bytes, reserve, true, p.get()))
		return status;
	if (!y || !dy || !dx || !w)
		return fail(bad_param, "an operand is absent");
	p->y_at = (void *)y, p->dy = dy, p->dx = dx, p->hx = hx, p->dhy = dhy, p->dhx = dhx, p->cx = cx, p->dcy = dcy, p->dcx = dcx, p->w = w;
	return enqueue(h, [p] { p->backward_data(); });
}
EXPORT int cudnnRNNBackwardWeights_v8(Handle *h, Rnn *r, int mode, const int32_t *lengths, Data *xd, const void *x, Tensor *hd, const void *hx, Data *yd, const void *y, size_t weights, void *dw,
									  size_t work_bytes, void *work, size_t reserve_bytes, void *reserve) {
	auto p = std::make_shared<Pass>();
	Tensor c = *hd; // there is none
	c.dims[2] = r->H, c.strides[0] = c.dims[1] * r->H, c.strides[1] = r->H;
	if (int status = check(h, r, lengths, xd, yd, hd, &c, nullptr, weights, work_bytes, work, reserve_bytes, reserve, true, p.get()))
		return status;
	if (mode || !x || !y || !dw)
		return fail(mode ? not_supported : bad_param, "an operand is absent, or a mode is not that of adding");
	p->x_at = x, p->hx = hx, p->y_at = (void *)y, p->dy = y, p->dw = dw;
	return enqueue(h, [p] { p->backward_weights(); });
}

//go:build dl && linux

package cuda

import (
	"math/bits"

	"github.com/carousel-ml/carousel/internal/device"
)

const (
	warp     = 32
	perWarps = perBlock / warp // WARPS of the kernels
)

// teams is the shape of an operation by rows: a warp takes a row or, if it is wide, a
// block. tmp is the bytes of shared memory that sums over a block need. Which it is
// depends on the columns alone, so that no bit of a row depends on the other rows.
func teams(rows, cols, tmp int) (s shape, wide int32) {
	if cols > 512 {
		return blocks(min(rows, 4096), tmp), 1
	}
	return blocks(min(ceilDiv(rows, perWarps), 4096), tmp), 0
}

// sumBytes is what block_sum of float32 needs; of float64 it is twice that.
const sumBytes = 4 * (warp + 1)

func ceilDiv(n, d int) int { return (n + d - 1) / d }

// flag is a bool of a kernel's arguments.
func flag(on bool) int32 {
	if on {
		return 1
	}
	return 0
}

type normArgs struct {
	x, gamma, beta  uintptr
	y, mean, rstd   uintptr
	dy              uintptr
	dx, parts       uintptr
	rows, block     int64
	cols, wide, acc int32
	eps             float32
}

// Norm computes Y = (X-mean)/√(var+Eps)·Gamma + Beta for each row. Gamma, Beta, Mean and RStd may be absent.
func (b *Backend) Norm(s *device.NormSpec) {
	if s.Rows == 0 || s.Cols == 0 {
		return
	}
	b.enter()
	defer b.leave()
	sh, wide := teams(s.Rows, s.Cols, sumBytes)
	launch(b, kernel{file: "layers", name: "layer_norm"}, sh, &normArgs{x: s.X.Addr, gamma: s.Gamma.Addr, beta: s.Beta.Addr,
		y: s.Y.Addr, mean: s.Mean.Addr, rstd: s.RStd.Addr, rows: int64(s.Rows), cols: int32(s.Cols), wide: wide, eps: s.Eps})
}

// NormGrad computes DX, DGamma and DBeta, which may be absent, from X, Mean, RStd, Gamma and DY.
func (b *Backend) NormGrad(s *device.NormSpec) {
	if s.Rows == 0 || s.Cols == 0 {
		return
	}
	b.enter()
	defer b.leave()
	a := normArgs{x: s.X.Addr, gamma: s.Gamma.Addr, mean: s.Mean.Addr, rstd: s.RStd.Addr, dy: s.DY.Addr, dx: s.DX.Addr,
		rows: int64(s.Rows), cols: int32(s.Cols), acc: flag(s.AccX)}
	if !s.DGamma.Zero() || !s.DBeta.Zero() { // first, since DX may be DY's memory
		block := max(8*perWarps, ceilDiv(s.Rows, 128))
		parts := ceilDiv(s.Rows, block)
		a.block, a.parts = int64(block), b.work(parts*2*s.Cols*4)
		sh := blocks(ceilDiv(s.Cols, warp), 2*perBlock*4)
		sh.grid[1] = parts
		launch(b, kernel{file: "layers", name: "layer_norm_parts"}, sh, &a)
		b.addParts(s.DGamma, s.DBeta, a.parts, parts, s.Cols)
	}
	if !s.DX.Zero() {
		var sh shape
		sh, a.wide = teams(s.Rows, s.Cols, sumBytes)
		launch(b, kernel{file: "layers", name: "layer_norm_grad"}, sh, &a)
	}
}

type addPartsArgs struct {
	parts, first, second uintptr
	n, cols              int32
}

// addParts adds the sums over n of parts [n,2,cols] to two vectors, each of which may be absent.
func (b *Backend) addParts(first, second device.Buffer, parts uintptr, n, cols int) {
	launch(b, kernel{file: "layers", name: "add_parts"}, each(2*cols), &addPartsArgs{parts, first.Addr, second.Addr, int32(n), int32(cols)})
}

type softmaxArgs struct {
	x, dy, y, dx, lens        uintptr
	rows                      int64
	cols, per, wide, log, acc int32
}

// Softmax computes y = e^x/Σe^x, or its logarithm, over each row's valid columns.
func (b *Backend) Softmax(s *device.SoftmaxSpec) { b.softmax(s, "softmax") }

// SoftmaxGrad computes DX from Y and DY, over the valid columns.
func (b *Backend) SoftmaxGrad(s *device.SoftmaxSpec) { b.softmax(s, "softmax_grad") }

func (b *Backend) softmax(s *device.SoftmaxSpec, name string) {
	b.enter()
	defer b.leave()
	sh, wide := teams(s.Rows, s.Cols, sumBytes)
	launch(b, kernel{file: "layers", name: name}, sh, &softmaxArgs{x: s.X.Addr, dy: s.DY.Addr, y: s.Y.Addr, dx: s.DX.Addr, lens: s.Lens.Addr,
		rows: int64(s.Rows), cols: int32(s.Cols), per: int32(max(s.RowsPerLen, 1)), wide: wide, log: flag(s.Log), acc: flag(s.AccX)})
}

type embedArgs struct {
	table, dy, ids, y, dtable    uintptr
	n                            int64
	v, d, padding, owners, strip int32
}

// Embed computes Y[n] = Table[IDs[n]]. An id outside [0,V) gives a row of NaN.
func (b *Backend) Embed(s *device.EmbedSpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "layers", name: "embed"}, blocks(min(ceilDiv(s.IDs.N, perWarps), 4096), 0),
		&embedArgs{table: s.Table.Addr, ids: s.IDs.Addr, y: s.Y.Addr, n: int64(s.IDs.N), v: int32(s.V), d: int32(s.D)})
}

// EmbedGrad computes DTable[IDs[n]] += DY[n], in ascending n.
func (b *Backend) EmbedGrad(s *device.EmbedSpec) {
	if s.V == 0 || s.D == 0 || s.IDs.N == 0 {
		return
	}
	b.enter()
	defer b.leave()
	const listed = 2048                            // LISTED of the kernel
	owners := 1 << bits.Len(uint(min(s.V, 512)-1)) // each block reads all ids, so more blocks do more work as well
	strips := min(ceilDiv(s.D, warp), perWarps)
	sh := blocks(owners, 4*(2*listed+perWarps))
	sh.grid[1] = ceilDiv(s.D, strips*warp)
	launch(b, kernel{file: "layers", name: "embed_grad"}, sh, &embedArgs{dy: s.DY.Addr, ids: s.IDs.Addr, dtable: s.DTable.Addr,
		n: int64(s.IDs.N), v: int32(s.V), d: int32(s.D), padding: s.Padding, owners: int32(owners), strip: int32(strips)})
}

type poolArgs struct {
	x, dy, y, dx, lens, arg uintptr
	kind, b, t, f, acc      int32
}

func newPoolArgs(s *device.PoolSpec) *poolArgs {
	a := &poolArgs{x: s.X.Addr, dy: s.DY.Addr, y: s.Y.Addr, dx: s.DX.Addr, lens: s.Lens.Addr,
		kind: int32(s.Kind), b: int32(s.B), t: int32(s.T), f: int32(s.F), acc: flag(s.AccX)}
	if s.Kind == device.PoolMax {
		a.arg = s.Arg.Addr
	}
	return a
}

// Pool computes s: one vector per sequence, from its valid steps alone. If one of
// those that it reads is NaN, so is the result.
func (b *Backend) Pool(s *device.PoolSpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "layers", name: "pool"}, blocks(s.B*ceilDiv(s.F, warp), 2*perBlock*4), newPoolArgs(s))
}

// PoolGrad adds DY to the gradients of the steps that Pool used; without AccX the others are zero.
func (b *Backend) PoolGrad(s *device.PoolSpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "layers", name: "pool_grad"}, each(s.B*s.T*s.F), newPoolArgs(s))
}

// window is device.Window.
type window struct{ in, out, kernel, stride, dilation, before int32 }

func newWindow(w *device.Window) window {
	return window{int32(w.In), int32(w.Out), int32(w.Kernel), int32(w.Stride), int32(w.Dilation), int32(w.Before)}
}

type windowArgs struct {
	x, dy, y, dx, lens, arg             uintptr
	b, c                                int32
	h, w                                window
	mean, countPad, afterH, afterW, acc int32
}

func newWindowArgs(s *device.WindowPoolSpec) *windowArgs {
	a := &windowArgs{x: s.X.Addr, dy: s.DY.Addr, y: s.Y.Addr, dx: s.DX.Addr, lens: s.Lens.Addr,
		b: int32(s.B), c: int32(s.C), h: newWindow(&s.H), w: newWindow(&s.W),
		mean: flag(s.Mean), countPad: flag(s.CountPad), afterH: int32(s.After[0]), afterW: int32(s.After[1]), acc: flag(s.AccX)}
	if !s.Mean {
		a.arg = s.Arg.Addr
	}
	return a
}

// WindowPool computes s. If an input of a window is NaN, so is its maximum.
func (b *Backend) WindowPool(s *device.WindowPoolSpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "layers", name: "window_pool"}, each(s.B*s.H.Out*s.W.Out*s.C), newWindowArgs(s))
}

// WindowPoolGrad computes DX from DY, and from Arg for a maximum.
func (b *Backend) WindowPoolGrad(s *device.WindowPoolSpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "layers", name: "window_pool_grad"}, each(s.B*s.H.In*s.W.In*s.C), newWindowArgs(s))
}

type additiveArgs struct {
	query, key, v, cover, w, dscore, lens uintptr
	score, dquery, dkey, dcover, parts    uintptr
	b, q, t, u                            int32
}

func newAdditiveArgs(s *device.AdditiveSpec) *additiveArgs {
	return &additiveArgs{query: s.Query.Addr, key: s.Key.Addr, v: s.V.Addr, cover: s.Cover.Addr, w: s.W.Addr, dscore: s.DScore.Addr,
		lens: s.Lens.Addr, score: s.Score.Addr, dquery: s.DQuery.Addr, dkey: s.DKey.Addr, dcover: s.DCover.Addr,
		b: int32(s.B), q: int32(s.Q), t: int32(s.T), u: int32(s.U)}
}

// Additive computes the scores of s.
func (b *Backend) Additive(s *device.AdditiveSpec) {
	b.enter()
	defer b.leave()
	sh, _ := teams(s.B*s.Q*s.T, warp, 0)
	launch(b, kernel{file: "layers", name: "additive"}, sh, newAdditiveArgs(s))
}

// AdditiveGrad is the backward pass of Additive: each row's part, then the sums over
// rows in ascending order.
func (b *Backend) AdditiveGrad(s *device.AdditiveSpec) {
	if s.B == 0 || s.U == 0 {
		return
	}
	b.enter()
	defer b.leave()
	a := newAdditiveArgs(s)
	a.parts = b.work(s.B * 2 * s.U * 4)
	const queries = 4 // QUERIES of the kernel
	launch(b, kernel{file: "layers", name: "additive_grad"}, blocks(s.B*ceilDiv(s.U, warp), queries*perBlock*4), a)
	b.addParts(s.DV, s.DW, a.parts, s.B, s.U)
	if !s.DCover.Zero() {
		sh, _ := teams(s.B*s.Q*s.T, warp, 0)
		launch(b, kernel{file: "layers", name: "additive_cover_grad"}, sh, a)
	}
}

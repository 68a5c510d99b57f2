//go:build dl && linux

package cuda

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// clearArgs is clear_args of scan_grad.cu, and the following likewise.
type clearArgs struct {
	x, active   uintptr
	t, b, width int32
}

type inputsArgs struct {
	dst, x, active          uintptr
	t, b, width, batchMajor int32
}

type sumsArgs struct {
	dst, dst2, x               uintptr
	rows                       int64
	cols, ld, block, add, from int32
}

// memory hands out parts of the memory of an operation.
type memory struct {
	buf device.Buffer
	at  int
}

func (m *memory) take(n int) (part device.Buffer) {
	if n > 0 {
		part = m.buf.Slice(m.at, m.at+n)
	}
	m.at += lines(n)
	return part
}

// sumRows is the rows that a thread of scan_sums adds up.
const sumRows = 256

// collectors are the parameters that the rows collect, in the order of scanArgs.at.
var collectors = [...]cell.Param{cell.PeepI, cell.PeepF, cell.PeepO, cell.NormX, cell.NormR, cell.NormC, cell.BiasC, cell.BR}

// ScanGrad runs one direction of one layer backward, after a Scan with Keep.
func (b *Backend) ScanGrad(s *device.ScanSpec) {
	if s.B == 0 || s.H == 0 {
		return
	}
	b.enter()
	defer b.leave()
	before := *s // as Scan saw it
	before.TraceDH, before.TraceDC, before.TraceGain = device.Buffer{}, device.Buffer{}, device.Buffer{}
	if b.dnnTakes(&before) {
		if b.dnnTakes(s) {
			b.dnnScanGrad(s)
			return
		}
		before.Y, before.HN, before.CN = device.Buffer{}, device.Buffer{}, device.Buffer{}
		b.scan(&before) // cuDNN has kept nothing that can be traced
	}
	b.scanGrad(s)
}

// scanGrad is ScanGrad by the kernels here.
func (b *Backend) scanGrad(s *device.ScanSpec) {
	e := b.newScan(s, true)
	a := &e.args
	for i, p := range collectors {
		a.at[i] = -1
		if n := e.Collected(p); n > 0 {
			a.at[i] = a.accN
			a.accN += int32(n)
		}
	}
	steps := s.T * s.B
	packed := !s.Active.Zero() || s.BatchMajor // X is needed in another form
	var dh, dc, dr, dmid, dp, acc, x, sums device.Buffer
	parts := []struct {
		to *device.Buffer
		n  int
	}{{&dh, s.B * e.out}, {&dc, s.B * e.cw}, {&dr, s.B * e.out * int(a.drops)}, {&dmid, s.B * s.H}, {&dp, steps * e.out * int(a.proj)},
		{&acc, s.B * int(a.accN)}, {&x, steps * s.I * int(flag(packed && !s.Grads[cell.W].Zero()))}, {&sums, ceilDiv(max(steps, s.B), sumRows) * max(e.gw, int(a.accN))}}
	total := 0
	for _, p := range parts {
		total += lines(p.n)
	}
	m := memory{buf: device.Buffer{Addr: b.work(4 * total), N: total}}
	for _, p := range parts {
		*p.to = m.take(p.n)
	}
	a.dy, a.dhn, a.dcn, a.gain = columns(s.DY, s.YOff), s.DHN.Addr, s.DCN.Addr, s.TraceGain.Addr
	a.dh, a.dc, a.dr, a.dmid, a.dp, a.acc = dh.Addr, dc.Addr, dr.Addr, dmid.Addr, dp.Addr, acc.Addr
	a.traceDH, a.traceDC, a.dh0, a.dc0 = s.TraceDH.Addr, s.TraceDC.Addr, s.Grads[cell.H0].Addr, s.Grads[cell.C0].Addr
	e.queue("scan_grad")
	if s.T == 0 {
		return
	}
	if !s.Active.Zero() {
		for _, part := range [...]struct {
			x     device.Buffer
			width int
		}{{e.Gates, e.gw}, {e.Side, e.sw}, {e.XHat, e.gw}, {e.Mid, s.H}, {dp, e.out}, {e.entering(), e.out}} {
			if !part.x.Zero() {
				launch(b, e.kernel("scan_grad", "scan_clear", ""), each(steps*part.width), &clearArgs{part.x.Addr, s.Active.Addr, int32(s.T), int32(s.B), int32(part.width)})
			}
		}
	}
	if packed && !x.Zero() {
		launch(b, e.kernel("scan_grad", "scan_inputs", ""), each(steps*s.I), &inputsArgs{x.Addr, s.X.Addr, s.Active.Addr, int32(s.T), int32(s.B), int32(s.I), flag(s.BatchMajor)})
	} else {
		x = s.X
	}
	e.weightGrads(x, dp)
	e.biasGrads(sums)
	e.vectorGrads(acc, sums)
}

// entering returns the states that R is multiplied with, [T,B,O].
func (e *scan) entering() device.Buffer {
	h := e.Hs
	if e.HDrop > 0 {
		h = e.HIn
	}
	first := int(flag(e.Reverse)) * e.B * e.out
	return h.Slice(first, first+e.T*e.B*e.out)
}

// weightGrads queues the gradients of X and of the matrices, from those of the pre-activations. x is X
// in the order of the gates, dp the gradients of the products with P. Rows past their ends are zero in all.
func (e *scan) weightGrads(x, dp device.Buffer) {
	b, rows := e.b, e.T*e.B
	input := e.Gates
	if e.Has(cell.NormX) {
		input = e.XHat
	}
	if !e.DX.Zero() {
		g := device.GemmSpec{M: rows, N: e.I, K: e.gw, A: input, B: e.Params[cell.W], C: e.DX, Acc: e.DXAcc, Kind: e.kindOf(cell.W), Cache: e.BackCache, Version: e.Version}
		if e.BatchMajor {
			g.M, g.Batch = e.T, e.B
			g.LDA, g.StrideA, g.LDC, g.StrideC = e.B*e.gw, e.gw, e.I, e.T*e.I
		}
		b.gemm(&g)
	}
	// grad adds left transposed times right, over all steps and rows, to a gradient.
	grad := func(p cell.Param, to device.Buffer, n, width int, left device.Buffer, ld int, right device.Buffer) {
		if !to.Zero() {
			b.gemm(&device.GemmSpec{M: n, N: width, K: rows, A: left, LDA: ld, TransA: true, B: right, C: to, Acc: true, Kind: e.kindOf(p)})
		}
	}
	grad(cell.W, e.Grads[cell.W], e.gw, e.I, input, e.gw, x)
	grad(cell.P, e.Grads[cell.P], e.out, e.H, dp, e.out, e.Mid)
	if to := e.Grads[cell.R]; !to.Zero() {
		split := e.joined * e.out
		if split > 0 {
			grad(cell.R, to.Slice(0, split), e.joined, e.out, e.Gates, e.gw, e.entering())
		}
		switch rest := e.gw - e.joined; {
		case e.Cell == cell.GRUBefore:
			grad(cell.R, to.Slice(split, to.N), rest, e.out, e.Gates.Slice(e.joined, e.Gates.N), e.gw, e.Side)
		case rest > 0:
			grad(cell.R, to.Slice(split, to.N), rest, e.out, e.Side, e.sw, e.entering())
		}
	}
}

// addSums adds the sums over rows of columns [from,from+cols) of x to dst and to dst2, which may be absent.
func (e *scan) addSums(dst, dst2, x device.Buffer, rows, from, cols, ld int, tmp device.Buffer) {
	if cols == 0 || rows == 0 || dst.Zero() && dst2.Zero() {
		return
	}
	b, k := e.b, e.kernel("scan_grad", "scan_sums", "")
	n := ceilDiv(rows, sumRows)
	launch(b, k, each(n*cols), &sumsArgs{dst: tmp.Addr, x: x.Addr, rows: int64(rows), cols: int32(cols), ld: int32(ld), block: sumRows, from: int32(from)})
	launch(b, k, each(cols), &sumsArgs{dst: dst.Addr, dst2: dst2.Addr, x: tmp.Addr, rows: int64(n), cols: int32(cols), ld: int32(cols), block: int32(n), add: 1})
}

// biasGrads queues the gradients of the biases.
func (e *scan) biasGrads(tmp device.Buffer) {
	rows, bw, br := e.T*e.B, e.Grads[cell.BW], e.Grads[cell.BR]
	part := func(g device.Buffer, lo, hi int) device.Buffer {
		if g.Zero() {
			return g
		}
		return g.Slice(lo, hi)
	}
	e.addSums(part(bw, 0, e.tied), part(br, 0, e.tied), e.Gates, rows, 0, e.tied, e.gw, tmp)
	e.addSums(part(bw, e.tied, e.gw), device.Buffer{}, e.Gates, rows, e.tied, e.gw-e.tied, e.gw, tmp)
	if !e.Has(cell.NormX) {
		e.addSums(part(br, e.tied, e.gw), device.Buffer{}, e.Side, rows, 0, e.gw-e.tied, e.sw, tmp)
	}
}

// vectorGrads adds the gradients that the rows have collected.
func (e *scan) vectorGrads(acc, tmp device.Buffer) {
	for i, p := range collectors {
		if n, dst := e.Collected(p), e.Grads[p]; n > 0 && !dst.Zero() {
			e.addSums(dst.Slice(dst.N-n, dst.N), device.Buffer{}, acc, e.B, int(e.args.at[i]), n, int(e.args.accN), tmp)
		}
	}
}

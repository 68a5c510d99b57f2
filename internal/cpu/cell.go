package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// row is one batch row of one step, the unit a cell works on. A row and not an
// element, so that a cell may normalise over it.
type row struct {
	set        *simd.Set
	h          int           // H
	gates      []float32     // [G*H] pre-activations -> activations; backward: -> their gradients
	side       []float32     // [H] the last gate's recurrent term, kept apart; backward: -> its gradient
	hOld, hNew []float32     // [H] state before and after; forward writes hNew
	cOld, cNew []float32     // [H] likewise, for cells with two states
	dh         []float32     // [H] in dL/dhNew; out the direct part of dL/dhOld, if the cell has one
	dc         []float32     // [H] in dL/dcNew from the future; out dL/dcOld
	fwd        simd.LSTMArgs // the kernels' arguments, here so that a call allocates nothing
	bwd        simd.LSTMGradArgs
}

var rowPool = newPool[row]()

// cell is a row of the engine's table: the arithmetic between the products.
type cell struct {
	forward  func(r *row)
	backward func(r *row)
	direct   bool // hNew depends on hOld beside the recurrent product
}

var cells = [device.NumCells]cell{
	device.LSTM:    {forward: lstmForward, backward: lstmBackward},
	device.GRU:     {forward: gruForward, backward: gruBackward, direct: true},
	device.RNNTanh: {forward: tanhForward, backward: tanhBackward},
	device.RNNReLU: {forward: reluForward, backward: reluBackward},
}

// The LSTM of torch.nn.LSTM (Hochreiter and Schmidhuber 1997 with the forget
// gate of Gers et al. 2000): c' = f⊙c + i⊙g, h' = o⊙tanh(c'). It is one kernel.

func lstmForward(r *row) {
	r.fwd = simd.LSTMArgs{H: r.h, Gates: &r.gates[0], CPrev: &r.cOld[0], C: &r.cNew[0], Hid: &r.hNew[0]}
	r.set.LSTM(&r.fwd)
}

func lstmBackward(r *row) {
	r.bwd = simd.LSTMGradArgs{H: r.h, Gates: &r.gates[0], CPrev: &r.cOld[0], C: &r.cNew[0], DHid: &r.dh[0], DC: &r.dc[0]}
	r.set.LSTMGrad(&r.bwd)
}

// The GRU of torch.nn.GRU, reset after the recurrent product (v3 of Cho et al.
// 2014): n = tanh(W·x + b + r⊙(R·h + b')), h' = (1-z)⊙n + z⊙h. Side is R·h + b'.

func gruForward(r *row) {
	H := r.h
	rz, n := r.gates[:2*H], r.gates[2*H:]
	r.set.Sigmoid(rz, rz)
	r.set.MulAdd(n, rz[:H], r.side)
	r.set.Tanh(n, n)
	mixGRU(r.hNew, rz[H:], n, r.hOld)
}

// mixGRU is h' = n + z⊙(h-n).
func mixGRU(hNew, z, n, hOld []float32) {
	for i, n := range n {
		hNew[i] = n + float32(z[i]*(hOld[i]-n))
	}
}

func gruBackward(r *row) {
	H := r.h
	dr, dz, dn, side := r.gates[:H], r.gates[H:2*H], r.gates[2*H:3*H], r.side
	for i, dh := range r.dh {
		rt, z, n := dr[i], dz[i], dn[i]
		pre := dh * (1 - z) * (1 - n*n) // dL/d(W·x + b + r⊙side)
		dz[i] = dh * (r.hOld[i] - n) * z * (1 - z)
		dr[i] = pre * side[i] * rt * (1 - rt)
		dn[i] = pre
		side[i] = pre * rt
		r.dh[i] = dh * z
	}
}

// The Elman network of torch.nn.RNN: h' = tanh or ReLU of W·x + b + R·h + b'.

func tanhForward(r *row) { r.set.Tanh(r.hNew, r.gates) }

func tanhBackward(r *row) {
	for i, dh := range r.dh {
		h := r.hNew[i]
		r.gates[i] = dh * (1 - h*h)
	}
}

func reluForward(r *row) {
	for i, v := range r.gates {
		r.hNew[i] = max(v, 0) // max keeps NaN
	}
}

func reluBackward(r *row) {
	for i, dh := range r.dh {
		if r.hNew[i] <= 0 {
			dh = 0
		}
		r.gates[i] = dh
	}
}

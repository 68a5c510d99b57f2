package rig

import (
	"time"

	"github.com/carousel-ml/carousel/internal/device"
)

// An Operation is a large one of a training step, and the seconds that it takes on a core of its own.
type Operation struct {
	Name    string
	Seconds float64
}

// Paced is a device for ranks that outnumber the cores: a large operation waits for as long as it takes alone, in
// place of computing. Gradients of weights are then zeros, which travel as other numbers do; the rows of a table get
// numbers, because rows of zeros do not travel.
type Paced struct {
	device.Backend
	Times []Operation    // what operations wait for, in order and again from the first, or what they took
	Next  int            // how many have waited
	Clock func() float64 // in seconds: operations compute, and their times are appended; nil: they wait
}

func (p *Paced) on(name string, compute, instead func()) {
	if p.Clock != nil {
		from := p.Clock()
		compute()
		p.Times = append(p.Times, Operation{name, p.Clock() - from})
		return
	}
	from := time.Now()
	instead()
	time.Sleep(time.Until(from.Add(time.Duration(p.Times[p.Next%len(p.Times)].Seconds * float64(time.Second)))))
	p.Next++
}

func nothing() {}

func (p *Paced) Scan(s *device.ScanSpec) {
	p.on("scan", func() { p.Backend.Scan(s) }, nothing)
}

func (p *Paced) ScanGrad(s *device.ScanSpec) {
	p.on("scan back", func() { p.Backend.ScanGrad(s) }, func() {
		if !s.DX.Zero() {
			p.Fill(s.DX, 1e-3)
		}
	})
}

func (p *Paced) Gemm(s *device.GemmSpec) {
	p.on("product", func() { p.Backend.Gemm(s) }, nothing)
}

func (p *Paced) Loss(s *device.LossSpec) {
	p.on("loss", func() { p.Backend.Loss(s) }, func() { p.Fill(s.Value, 1) })
}

func (p *Paced) SumSquares(dst, src device.Buffer) {
	p.on("norm", func() { p.Backend.SumSquares(dst, src) }, func() { p.Fill(dst, 1) })
}

func (p *Paced) Step(s *device.StepSpec) {
	p.on("step", func() { p.Backend.Step(s) }, func() { p.Fill(s.G, 0) })
}

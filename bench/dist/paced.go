package main

import (
	"time"

	"github.com/carousel-ml/carousel/internal/device"
)

// An operation of a step, and the seconds that it takes on a core of its own.
type operation struct {
	Name    string
	Seconds float64
}

// A paced backend is for ranks that outnumber the cores: a large operation waits for as long as it
// takes alone, in place of computing. Gradients of weights are then zeros, but of as many
// bytes. Those of the embedding get numbers, because rows of zeros need not travel.
type paced struct {
	device.Backend
	times []operation // of the large operations of a step, in order
	next  int

	recording bool
	steps     [][]operation
}

// on runs compute and records its time, or waits until that time has passed since the beginning of instead.
func (p *paced) on(name string, compute, instead func()) {
	begun := time.Now()
	if p.recording {
		compute()
		p.times = append(p.times, operation{name, time.Since(begun).Seconds()})
		return
	}
	instead()
	time.Sleep(time.Until(begun.Add(time.Duration(p.times[p.next].Seconds * float64(time.Second)))))
	p.next = (p.next + 1) % len(p.times)
}

// step ends the recording of a step.
func (p *paced) step() { p.steps, p.times = append(p.steps, p.times), nil }

// least is a step of the least times of those that were recorded.
func (p *paced) least() []operation {
	list := p.steps[len(p.steps)-1]
	for i := range list {
		for _, s := range p.steps[warm:] {
			list[i].Seconds = min(list[i].Seconds, s[i].Seconds)
		}
	}
	return list
}

func nothing() {}

func (p *paced) Scan(s *device.ScanSpec) {
	p.on("scan", func() { p.Backend.Scan(s) }, nothing)
}

func (p *paced) ScanGrad(s *device.ScanSpec) {
	p.on("scan back", func() { p.Backend.ScanGrad(s) }, func() {
		if !s.DX.Zero() {
			p.Fill(s.DX, 1e-3)
		}
	})
}

func (p *paced) Gemm(s *device.GemmSpec) {
	p.on("product", func() { p.Backend.Gemm(s) }, nothing)
}

func (p *paced) Loss(s *device.LossSpec) {
	p.on("loss", func() { p.Backend.Loss(s) }, func() { p.Fill(s.Value, 1) })
}

func (p *paced) SumSquares(dst, src device.Buffer) {
	p.on("norm", func() { p.Backend.SumSquares(dst, src) }, func() { p.Fill(dst, 1) })
}

func (p *paced) Step(s *device.StepSpec) {
	p.on("step", func() { p.Backend.Step(s) }, func() { p.Fill(s.G, 0) })
}

package bench

import (
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
)

// Shape is a network and its batch: L layers of H units read B rows of T steps with I features.
type Shape struct {
	Name          string
	T, B, I, H, L int
}

//go:embed shapes.json
var shapesJSON []byte

// Shapes returns the shapes of shapes.json, which all benchmarks of the project
// use.
func Shapes() []Shape {
	var list []Shape
	if err := json.Unmarshal(shapesJSON, &list); err != nil {
		panic(fmt.Sprintf("bench: shapes.json: %v", err))
	}
	return list
}

// Input is the width of a layer's input.
func (s Shape) Input(layer int) int {
	if layer == 0 {
		return s.I
	}
	return s.H
}

// ForwardFlop counts the floating-point operations of the matrix products of
// one forward pass: 2*G*H*(I+H) per layer, step and row, with G the cell's
// gates. Training is counted as three forward passes.
func (s Shape) ForwardFlop(kind cell.Kind) float64 {
	flop := 0
	for layer := range s.L {
		flop += 2 * kind.Gates() * s.H * (s.Input(layer) + s.H)
	}
	return float64(flop) * float64(s.T*s.B)
}

// weightBytes is the size of all matrices, and recurrentBytes that of one layer's recurrent one.
func (s Shape) weightBytes(kind cell.Kind) float64 {
	return 2 * s.ForwardFlop(kind) / float64(s.T*s.B) // 4 bytes for every 2 operations
}

func (s Shape) recurrentBytes(kind cell.Kind) float64 {
	return float64(4 * kind.Gates() * s.H * s.H)
}

// Network creates a time-major stack of the shape.
func (s Shape) Network(kind cell.Kind) *nn.RNN {
	return nn.New(kind, s.I, s.H, &nn.RNNOptions{Layers: s.L, TimeMajor: true})
}

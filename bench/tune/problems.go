package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/tune"
)

// A problem is a loss over a space, whose least value is known.
type problem struct {
	name  string
	space *tune.Space
	loss  func(v tune.Values) float64
	least float64
	// spread is what random values lose in the median, above the least loss.
	spread float64
}

// tables are the names of the tabulated problems, as the driver writes them.
var tables = []string{"phoneme", "vehicle", "protein_structure", "slice_localization", "cifar100"}

// problems returns all nine; folder holds the tables.
func problems(folder string) ([]*problem, error) {
	var list []*problem
	for _, name := range tables {
		p, err := readTable(folder, name)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	list = append(list,
		&problem{name: "branin", loss: branin, least: 10 / (8 * math.Pi), space: &tune.Space{Params: []*tune.Param{
			{Name: "x", Low: -5, High: 10}, {Name: "y", Low: 0, High: 15},
		}}},
		&problem{name: "hartmann6", loss: hartmann6, least: -3.322368011391339, space: cube(6, 0, 1)},
		&problem{name: "rosenbrock5", loss: rosenbrock5, least: 0, space: cube(5, -2.048, 2.048)},
		&problem{name: "tree", loss: tree, least: 0.05, space: &tune.Space{Params: []*tune.Param{
			{Name: "lr", Low: 1e-5, High: 1, Log: true},
			{Name: "decay", Low: 1e-6, High: 0.1, Log: true},
			{Name: "optimizer", Type: tune.Choice, Choices: []string{"sgd", "adam"}},
			{Name: "momentum", Low: 0, High: 0.99, When: "optimizer", Equals: []string{"sgd"}},
			{Name: "beta", Low: 0.5, High: 0.999, When: "optimizer", Equals: []string{"adam"}},
			{Name: "layers", Type: tune.Int, Low: 1, High: 4},
			{Name: "dropout", Low: 0, High: 0.8, When: "layers", Equals: []string{"2", "3", "4"}},
		}}},
	)
	for _, p := range list {
		if err := p.space.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		var losses []float64
		for _, v := range p.points(1, 2001) {
			losses = append(losses, p.loss(v))
		}
		slices.Sort(losses)
		p.spread = losses[len(losses)/2] - p.least
	}
	return list, nil
}

func cube(dims int, low, high float64) *tune.Space {
	s := &tune.Space{}
	for i := range dims {
		s.Params = append(s.Params, &tune.Param{Name: "x" + strconv.Itoa(i), Low: low, High: high})
	}
	return s
}

// points returns values at random.
func (p *problem) points(seed uint64, count int) []tune.Values {
	r := rand.New(rand.NewPCG(seed, 0))
	list := make([]tune.Values, count)
	for i := range list {
		list[i] = p.space.Build(func(q *tune.Param, _ tune.Values) any { return q.At(r.Float64()) })
	}
	return list
}

func readTable(folder, name string) (*problem, error) {
	b, err := os.ReadFile(filepath.Join(folder, name+".json"))
	if err != nil {
		return nil, err
	}
	var t struct {
		Params []struct {
			Name    string
			Levels  int
			Ordered bool
		}
		Losses []float64 // row-major
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	space, size := &tune.Space{}, 1
	for _, q := range t.Params {
		p := &tune.Param{Name: q.Name, Type: tune.Int, High: float64(q.Levels - 1)}
		if !q.Ordered {
			p.Type, p.High = tune.Choice, 0
			for i := range q.Levels {
				p.Choices = append(p.Choices, strconv.Itoa(i))
			}
		}
		space.Params, size = append(space.Params, p), size*q.Levels
	}
	if size != len(t.Losses) {
		return nil, fmt.Errorf("%s: expected %d losses, got %d", name, size, len(t.Losses))
	}
	return &problem{name: name, space: space, least: slices.Min(t.Losses), loss: func(v tune.Values) float64 {
		at := 0
		for _, p := range space.Params {
			level, _ := strconv.Atoi(p.Text(v[p.Name]))
			at = at*p.Count() + level
		}
		return t.Losses[at]
	}}, nil
}

func branin(v tune.Values) float64 {
	x, y := v["x"].(float64), v["y"].(float64)
	a := y - 5.1/(4*math.Pi*math.Pi)*x*x + 5/math.Pi*x - 6
	return a*a + 10*(1-1/(8*math.Pi))*math.Cos(x) + 10
}

// Hartmann's function of six variables as Dixon & Szegö (1978) give it.
var (
	hartmannAlpha = []float64{1.0, 1.2, 3.0, 3.2}
	hartmannA     = [][]float64{
		{10, 3, 17, 3.5, 1.7, 8},
		{0.05, 10, 17, 0.1, 8, 14},
		{3, 3.5, 1.7, 10, 17, 8},
		{17, 8, 0.05, 10, 0.1, 14},
	}
	hartmannP = [][]float64{
		{0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886},
		{0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991},
		{0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650},
		{0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381},
	}
)

func hartmann6(v tune.Values) (loss float64) {
	for i, alpha := range hartmannAlpha {
		sum := 0.0
		for j := range 6 {
			d := v["x"+strconv.Itoa(j)].(float64) - hartmannP[i][j]
			sum += hartmannA[i][j] * d * d
		}
		loss -= alpha * math.Exp(-sum)
	}
	return loss
}

func rosenbrock5(v tune.Values) (loss float64) {
	for i := range 4 {
		x, next := v["x"+strconv.Itoa(i)].(float64), v["x"+strconv.Itoa(i+1)].(float64)
		loss += 100*(next-x*x)*(next-x*x) + (1-x)*(1-x)
	}
	return loss
}

// tree has parameters that depend on others: each optimizer its own, and dropout only where there is
// a layer to put it behind. The best is adam at lr 1e-3, decay 1e-4, beta 0.9, 3 layers, dropout 0.3.
func tree(v tune.Values) (loss float64) {
	square := func(x float64) float64 { return x * x }
	lr := v["lr"].(float64)
	if v["optimizer"] == "sgd" {
		momentum := v["momentum"].(float64)
		loss = 0.1 + 0.2*square(math.Log10(lr/(1-momentum))+0.5) + 0.5*square(momentum-0.9)
	} else {
		loss = 0.05 + 0.3*square(math.Log10(lr)+3) + 2*square(v["beta"].(float64)-0.9)
	}
	layers := float64(v["layers"].(int))
	loss += 0.03 * square(layers-3)
	if layers > 1 {
		loss += square(v["dropout"].(float64) - 0.1*layers)
	}
	return loss + 0.05*square(math.Log10(v["decay"].(float64))+4)
}

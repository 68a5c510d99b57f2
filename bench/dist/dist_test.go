package main

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/train/traintest"
)

// A step whose large operations wait takes the time that they are given, and two ranks still send
// each other what a real step sends: gradients of all weights, and rows of the embedding.
func TestPacedStepsMeet(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a large network")
	}
	worlds := traintest.Worlds(2)
	ids, targets := tokens()
	alone := &ranker{ids: ids, targets: targets}
	recorded, err := alone.answer(context.Background(), &request{Do: "record", Alone: true, Steps: warm + 1})
	if err != nil {
		t.Fatal(err)
	}
	q := request{Do: "turn", Steps: warm + 1}
	if err := q.wait(recorded.Times); err != nil {
		t.Fatal(err)
	}
	least := 0.0
	for _, o := range recorded.Times {
		least += o.Seconds
	}
	answers := make(chan *answer)
	for _, w := range worlds {
		go func() {
			a, err := (&ranker{world: w, ids: ids, targets: targets}).answer(context.Background(), &q)
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}()
	}
	for range worlds {
		if a := <-answers; a != nil && (len(a.Seconds) != 1 || a.Seconds[0] < least) {
			t.Errorf("a step took %v s, and its large operations alone %v", a.Seconds, least)
		}
	}
}

func TestWaitKnowsTheLayers(t *testing.T) {
	var times []rig.Operation
	for i, name := range []string{"scan", "scan", "product", "loss", "product", "product", "scan back", "scan back", "norm", "step"} {
		times = append(times, rig.Operation{Name: name, Seconds: math.Pow(2, float64(i))})
	}
	var q request
	if err := q.wait(times); err != nil {
		t.Fatal(err)
	}
	if l := q.Layers; !slices.Equal(l.Forward, []float64{1, 2, 4 + 8}) || !slices.Equal(l.Backward, []float64{128, 64, 16 + 32}) || l.Step != 256+512 {
		t.Errorf("times of layers are %v", *l)
	}
	if err := q.wait(times[1:]); err == nil {
		t.Error("another order of operations is taken")
	}
}

func TestLeastTimes(t *testing.T) {
	var steps [][]rig.Operation
	for _, seconds := range []float64{1, 1, 8, 4, 6} { // the first ones are not counted
		steps = append(steps, []rig.Operation{{Name: "a", Seconds: seconds}, {Name: "b", Seconds: 10 - seconds}})
	}
	if list := least(steps); !slices.Equal(list, []rig.Operation{{Name: "a", Seconds: 4}, {Name: "b", Seconds: 2}}) {
		t.Errorf("the least times are %v", list)
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{9, 1, 3}); got != 3 {
		t.Errorf("the median of 9, 1, 3 is %v", got)
	}
	if got := median([]float64{9, 1, 3, 5}); got != 4 {
		t.Errorf("the median of 9, 1, 3, 5 is %v", got)
	}
}

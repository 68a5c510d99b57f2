package tune

import (
	"math"
	"testing"
)

// The values of trials in the tests of importance: spread by the multiples of irrational numbers.
func spreadOut(s *Space, trial int) Values {
	roots := []float64{2, 3, 5, 7}
	all := map[string]float64{}
	for i, p := range s.Params {
		all[p.Name] = math.Mod(float64(trial+1)*math.Sqrt(roots[i]), 1)
	}
	return s.Build(func(p *Param, _ Values) any { return p.At(all[p.Name]) })
}

// The numbers wanted are those of optuna.importance.get_param_importances of Optuna 5.0.0 for studies of the same
// trials, made with create_trial and add_trial.
func TestImportance(t *testing.T) {
	for name, c := range map[string]struct {
		space    string
		trials   int
		maximize bool
		value    func(Values) float64
		want     map[string]float64
	}{
		"numbers": {
			space:  "x: {low: -5, high: 5}\nlr: {low: 1e-5, high: 1e-1, log: true}\nn: {low: 1, high: 9, type: int}",
			trials: 80,
			value: func(v Values) float64 {
				lr := math.Log10(v["lr"].(float64)) + 3
				return v["x"].(float64)*v["x"].(float64) + 3*lr*lr + float64(v["n"].(int))/4
			},
			want: map[string]float64{"x": 0.5356677742177989, "lr": 0.4496172212810021, "n": 0.014715004501199015},
		},
		"conditions": {
			space: `
opt: {choices: [sgd, adam, none]}
momentum: {low: 0, high: 1, when: opt, is: [sgd]}
beta: {low: 0, high: 1, when: opt, is: [adam]}
layers: {low: 1, high: 4, type: int}`,
			trials: 60,
			value: func(v Values) float64 {
				x := map[any]float64{"sgd": 0, "adam": .2, "none": 1}[v["opt"]] + float64(v["layers"].(int))/10
				if m, has := v["momentum"]; has {
					x += math.Abs(m.(float64) - .7)
				}
				if b, has := v["beta"]; has {
					x += b.(float64) / 3
				}
				return x
			},
			want: map[string]float64{"momentum": 0.6656253903216498, "layers": 0.2249752387549862, "opt": 0.1093993709233639, "beta": 0},
		},
		"steps and ties": {
			space:    "hidden: {low: 1, high: 500, type: int, log: true}\ndrop: {low: 0, high: 0.9, step: 0.1}\nsize: {low: 16, high: 2048, step: 8, type: int}",
			trials:   150,
			maximize: true,
			value: func(v Values) float64 {
				return math.Floor(10 * (math.Log(float64(v["hidden"].(int))) - v["drop"].(float64) + float64(v["size"].(int))/4000))
			},
			want: map[string]float64{"hidden": 0.9566050534161817, "drop": 0.03680601071050835, "size": 0.0065889358733098825},
		},
	} {
		t.Run(name, func(t *testing.T) {
			space, err := ParseSpace("space.yaml", c.space)
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(space, Options{Trials: 1, Sampler: "random", Objectives: []Objective{{Name: "value", Maximize: c.maximize}}})
			if err != nil {
				t.Fatal(err)
			}
			var list []*Record
			for i := range c.trials {
				v := spreadOut(space, i)
				x := c.value(v)
				list = append(list, &Record{Number: i, Values: v, Results: []float64{x}, Value: &x, State: Complete})
			}
			list = append(list, &Record{Number: len(list), Values: list[0].Values, State: Failed})
			got, err := s.Importance(list)
			if err != nil {
				t.Fatal(err)
			}
			sum, last := 0.0, 1.0
			for _, one := range got {
				if math.Abs(one.Share-c.want[one.Name]) > 1e-9 || one.Share > last {
					t.Errorf("%s is %v, want %v", one.Name, one.Share, c.want[one.Name])
				}
				sum, last = sum+one.Share, one.Share
			}
			if math.Abs(sum-1) > 1e-12 || len(got) != len(space.Params) {
				t.Errorf("%v sum to %v", got, sum)
			}
			if _, err := s.Importance(list[:9]); err == nil {
				t.Error("9 trials have an importance")
			}
		})
	}
}

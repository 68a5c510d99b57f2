package forecast

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
)

// Whatever network, shifts, residuals, mixtures, floors and levels there are, the
// quantiles of a forecast ascend with their levels, and so do those of an exported
// graph.
func TestQuantilesNeverCross(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	crossed := 0 // raw outputs of networks for quantiles
	for _, loss := range []string{"mae", "quantile", "gaussian", "student-t", "negative-binomial"} {
		for _, set := range []func(*Config){
			func(*Config) {},
			func(c *Config) { c.Floor, c.Target, c.Channels = []float64{20}, []string{"a", "b"}, "joint" },
			func(c *Config) { c.NoTargetHistory = true },
			func(c *Config) { c.Head = "autoregressive" },
			func(c *Config) { c.Transform, c.WindowNorm = "log", "standard" },
		} {
			cfg := small()
			cfg.Loss, cfg.Quantiles = loss, []float64{0.05, 0.2, 0.5, 0.6, 0.95}
			set(&cfg)
			if cfg.Validate() != nil {
				continue // not a model of its loss
			}
			m, d, err := prepare(t.Context(), &Data{Panel: hourly(2, 600)}, cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			weight := make([]float32, m.net.Head.Weight.Len())
			for i := range weight {
				weight[i] = float32(2 * r.NormFloat64())
			}
			m.net.Head.Weight.Write(weight)
			m.errors = 10
			if pointLoss(loss) {
				m.residuals = make(residuals, d.targets)
				for k := range m.residuals {
					for range d.horizon {
						e := make([]float64, 1+r.IntN(30))
						for i := range e {
							e[i] = r.ExpFloat64()
						}
						m.residuals[k] = append(m.residuals[k], thinSorted(e, keptResiduals))
					}
				}
			} else {
				m.shifts = make(shifts, d.targets)
				for k := range m.shifts {
					for range cfg.Quantiles {
						m.shifts[k] = append(m.shifts[k], 3*r.NormFloat64())
					}
				}
			}
			if cfg.Head == "direct" && loss != "negative-binomial" && !cfg.NoTargetHistory {
				shares := []part{{Method: ownPart, Share: 0.6}, {Method: seasonalName + "24", Share: 0.3}, {Method: "theta", Share: 0.1}}
				m.mixture = slices.Repeat(mixture{shares}, d.targets)
			}
			list, _ := d.toScore(testPart)
			for range 3 {
				levels := []float64{0.05, 0.5, 0.95}
				for range r.IntN(12) {
					levels = append(levels, 0.05+0.9*r.Float64())
				}
				slices.Sort(levels)
				_, err := m.adaptive(t.Context(), d, thin(list, 10), levels, spreads{}, func(_ window, k int, s *steps) {
					for h, q := range s.quantiles {
						if slices.ContainsFunc(q, math.IsNaN) || !slices.IsSorted(q) {
							t.Errorf("%s, head %s: levels %v of target %d, step %d: %v", loss, cfg.Head, levels, k, h+1, q)
						}
					}
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if loss != "quantile" {
				continue
			}
			e := &graphExporter{net: m.net, dev: m.slab.Device(), names: m.inputNames()}
			in := e.sample()
			raw := m.net.forward(tensor.NewTape(e.dev, tensor.Infer), e.batchOf(in)).Data()
			if !slices.IsSorted(raw[:d.outputs]) {
				crossed++
			}
			p, err := m.ExportONNX(t.Context(), filepath.Join(t.TempDir(), "m.onnx"))
			if err != nil || p.Values == 0 || p.MaxDiff > 2e-5 {
				t.Errorf("%v %v", p, err)
			}
			for step := range slices.Chunk(e.runDirect(in)["forecast"], d.outputs) { // which the graph equals
				if !slices.IsSorted(step) {
					t.Errorf("the graph's quantiles cross: %v", step)
				}
			}
		}
	}
	if crossed == 0 {
		t.Error("no network had crossing outputs, so nothing was tested")
	}
}

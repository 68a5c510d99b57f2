package train

import (
	"errors"
	"slices"
	"time"

	fields "github.com/carousel-ml/carousel/internal/settings" // package train has a type settings
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Settings describes a run as users do: the flags and recipe keys that all
// tasks share. A task's configuration embeds it, starts from [DefaultSettings]
// and trains with Options.
type Settings struct {
	Epochs      int           `json:"epochs" range:"0..1e6" group:"Training" help:"passes over the training data (0: by its size)"`
	LR          float64       `json:"lr" range:"0..10" group:"Training" help:"learning rate at the start, or after the warm-up"`
	MinLR       float64       `json:"min_lr" range:"0..10" group:"Training" help:"learning rate at the end of the cosine"`
	Warmup      float64       `json:"warmup" was:"warmup_share,warmup_steps" range:"[0..1)" group:"Training" help:"share of the planned steps over which the learning rate rises to lr (0: none)"`
	WeightDecay float64       `json:"weight_decay" range:"0..10" group:"Training" help:"decoupled weight decay"`
	Clip        float64       `json:"clip" range:"0..1e38" group:"Training" help:"largest norm of the gradient (0: no limit)"`
	EMA         float64       `json:"ema" range:"0..0.999999" group:"Training" help:"decay of averaged weights (0: no averaging); lower in short runs, so that the average spans at most a tenth of the steps"`
	Accumulate  int           `json:"accumulate" range:"1..1e6" before:"1" group:"Training" help:"batches whose gradients are added before each step"`
	Patience    int           `json:"patience" range:"-1..1e6" group:"Training" help:"epochs without improvement before stopping (0: a third of them, at least 5; -1: never)"`
	MaxTime     time.Duration `json:"max_time" range:"0s.." group:"Training" help:"stop after this long, such as 10m (0: no limit)"`
	Seed        uint64        `json:"seed" group:"Training" help:"seed of everything random"`

	Precision     string   `json:"precision" before:"\"f32\"" oneof:"f32,bf16,fp16,int8" group:"Training" help:"numbers that the products of training compute with; weights and sums keep 32 bits. In 8 bits operands are rounded as quantize rounds, also in validation, so that the weights adapt to it"`
	From          string   `json:"from,omitempty" value:"dir" group:"Training" help:"model directory whose weights the training begins from; its network, vocabularies and labels must be the same, of which names and shapes are compared"`
	PrecisionKeep []string `json:"precision_keep" group:"Training" help:"names of parameters, or their beginnings, whose products stay f32"`
}

// DefaultSettings are AdamW from 1e-3 to 1e-5 along a cosine, the gradient's norm
// clipped at 1, in float32.
func DefaultSettings() Settings {
	return Settings{LR: 1e-3, MinLR: 1e-5, WeightDecay: 1e-5, Clip: 1, Accumulate: 1, Seed: 1, Precision: tensor.Float32.String()}
}

// Validate returns a one-line error that names the first setting that is out of its
// range or would have no effect.
func (s *Settings) Validate() error {
	if err := fields.Check(s); err != nil {
		return err
	}
	if len(s.PrecisionKeep) > 0 && s.Precision == tensor.Float32.String() {
		return errors.New("precision_keep: all products are f32 already; set precision to bf16, fp16 or int8, or leave precision_keep out")
	}
	return nil
}

// FillDefaults fills in settings that depend on the size of the data: Epochs, if 0,
// becomes epochs; Patience, if 0, becomes max(5, Epochs/3).
func (s *Settings) FillDefaults(epochs int) {
	if s.Epochs == 0 {
		s.Epochs = epochs
	}
	if s.Patience == 0 {
		s.Patience = max(5, s.Epochs/3)
	}
}

// Fixed returns s without the settings that a resumed run may change: the
// limits, Accumulate, because a checkpoint compares its product with the
// number of ranks, and the order of PrecisionKeep.
func (s Settings) Fixed() Settings {
	s.MaxTime, s.Patience, s.Accumulate = 0, 0, 0
	s.PrecisionKeep = inOrder(s.PrecisionKeep)
	return s
}

// inOrder returns the names sorted, each once, for comparing.
func inOrder(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// Options returns the options of a settled run with the given number of batches
// per epoch. The learning rate rises linearly over the share Warmup of the planned
// steps and then falls along a cosine.
func (s *Settings) Options(batches int, run *Run) *Options {
	o := &Options{
		Run:    *run,
		Epochs: s.Epochs, MaxTime: s.MaxTime, Clip: float32(s.Clip), EMA: s.EMA, Patience: max(s.Patience, 0), Accumulate: s.Accumulate, Seed: s.Seed,
	}
	o.Precision, _ = tensor.ParsePrecision(s.Precision) // Validate refuses others
	o.Keep32, o.From = s.PrecisionKeep, s.From
	total := o.TotalSteps(batches)
	if total > 0 {
		o.EMA = min(o.EMA, max(0, 1-10/float64(total)))
	}
	o.Warmup = int(s.Warmup * float64(total))
	o.Schedule = optim.WarmupCosine(s.LR, s.MinLR, o.Warmup, total)
	return o
}

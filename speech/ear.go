package speech

import (
	"cmp"
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/train"
)

// ear turns files and sounds into steps for a network.
type ear struct {
	setup *Setup
	width int // features of a frame, before slopes
	stats *statistics
}

// inputs is the numbers of one step, for frames of width numbers.
func (c *Setup) inputs(width int) int { return width * (c.Deltas + 1) * c.Stack }

func (e *ear) inputs() int { return e.setup.inputs(e.width) }

// check reports an ear that no training made.
func (e *ear) check() error {
	if e.width < 1 || e.width > 1<<16 {
		return fmt.Errorf("width: want 1 to %d, got %d", 1<<16, e.width)
	}
	n := e.width * (e.setup.Deltas + 1)
	if kind := e.setup.Normalize; kind == "running" || kind == "global" {
		if e.stats == nil || len(e.stats.Mean) != n || len(e.stats.Deviation) != n {
			return fmt.Errorf("statistics: want those of %d features", n)
		}
		for i, d := range e.stats.Deviation {
			if mean := e.stats.Mean[i]; !(d > 0 && d < math.MaxFloat32 && math.Abs(mean) < math.MaxFloat32) {
				return fmt.Errorf("statistics: feature %d has mean %v and deviation %v", i+1, mean, d)
			}
		}
	}
	return nil
}

// hears reports a model that was trained on files of features, and knows
// nothing of sound.
func (e *ear) hears() error {
	spec := e.setup.specAt(e.setup.Rate)
	if e.setup.Rate == 0 || spec.Width() != e.width {
		return data.Errorf("the model was trained on files of features, not on sound; give .npy or .mfc files like those")
	}
	return nil
}

// frames is the features of a file.
func (e *ear) frames(path string) ([]float32, error) {
	return loadFrames(e.setup, path, e.width, "")
}

// framesOf is the features of a sound.
func (e *ear) framesOf(s *audio.Sound) ([]float32, error) {
	if err := e.hears(); err != nil {
		return nil, err
	}
	return audio.Extract(s, e.setup.specAt(e.setup.Rate)), nil
}

// steps is all steps of an utterance.
func (e *ear) steps(frames []float32) []float32 {
	return newFrontend(e.setup, e.width, e.stats).flushed(frames)
}

// corpus reads utterances that are not learned from.
func (e *ear) corpus(list []Utterance) (*corpus, error) {
	c := &corpus{dataset: &dataset{cfg: e.setup, list: list, width: e.width, stats: e.stats}, labels: make([][]int32, len(list))}
	faults, err := c.open()
	return c, cmp.Or(err, gather(faults))
}

// batches lists the utterances for a pass that draws nothing.
func (c *corpus) batches() [][]int {
	most := max(1, int(c.cfg.BatchTime/c.cfg.stepSeconds()))
	return train.NewBuckets(c.steps, most, 2*c.cfg.Batch, 0).InOrder()
}

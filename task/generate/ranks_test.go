package generate

import (
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

func weights(m *Model) (all []float32) {
	for _, p := range m.Slab().Params {
		all = append(all, p.Read()...)
	}
	return all
}

// history returns what metrics.jsonl says, but for the time.
func history(r *train.Result) (list []train.Record) {
	for _, one := range r.History {
		one.Seconds = 0
		list = append(list, one)
	}
	return list
}

// onRanks trains on several ranks, which must agree on everything.
func onRanks(t *testing.T, ranks int, data func() *Data, cfg Config, run train.Run) (*Model, *train.Result) {
	t.Helper()
	models, results, errs := make([]*Model, ranks), make([]*train.Result, ranks), make([]error, ranks)
	var all sync.WaitGroup
	for rank, w := range traintest.Worlds(ranks) {
		all.Go(func() {
			own := run
			own.World = w
			models[rank], results[rank], errs[rank] = Train(t.Context(), data(), cfg, &own)
		})
	}
	all.Wait()
	for rank := range ranks {
		if errs[rank] != nil {
			t.Fatalf("rank %d of %d: %v", rank, ranks, errs[rank])
		}
		if !slices.Equal(weights(models[rank]), weights(models[0])) || !reflect.DeepEqual(history(results[rank]), history(results[0])) {
			t.Errorf("rank %d of %d has other weights or another history than rank 0", rank, ranks)
		}
	}
	return models[0], results[0]
}

// Ranks give the weights and the scores of one process with as many batches to a step,
// bit for bit, also where the streams of some of them end before the others'.
func TestRanksAreOne(t *testing.T) {
	for _, unit := range []string{"char", "space"} {
		cfg := small(unit)
		cfg.EMA, cfg.AR, cfg.TAR = 0, 0.1, 0.1
		if unit == "space" { // of few tokens, with a softmax in clusters
			cfg.Softmax, cfg.Cutoffs, cfg.BPTT = "adaptive", []int{6, 12}, 5
		}
		read := func() *Data {
			return both(docs(story, story[:700], "The dog."), docs(story[50:600], story[20:90], story[10:400]))
		}
		cfg.Accumulate = 4
		alone, want := trainedOn(t, read(), cfg, nil)
		for _, ranks := range []int{2, 4} {
			cfg.Accumulate = 4 / ranks
			m, got := onRanks(t, ranks, read, cfg, train.Run{})
			if !slices.Equal(weights(m), weights(alone)) {
				t.Errorf("%s: %d ranks: other weights than of one process", unit, ranks)
			}
			if !reflect.DeepEqual(history(got), history(want)) {
				t.Errorf("%s: %d ranks: history %+v, want %+v", unit, ranks, history(got), history(want))
			}
		}
	}
}

func trainedOn(t *testing.T, d *Data, cfg Config, run *train.Run) (*Model, *train.Result) {
	t.Helper()
	m, r, err := Train(t.Context(), d, cfg, run)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

// A batch of a step goes on where the same number of the step before ended: with one
// stream to a batch, the losses of two batches to a step are those of a batch of two
// streams.
func TestSlotsAreStreams(t *testing.T) {
	cfg := small("char")
	cfg.Dropout, cfg.Epochs = 0, 3
	d := both(docs(story[:1000]), docs(story[:300]))
	_, want := trainedOn(t, d, cfg, nil)
	cfg.Batch, cfg.Accumulate = 1, 2
	_, got := trainedOn(t, d, cfg, nil)
	for i, r := range got.History {
		w := want.History[i]
		if r.Step != w.Step || !near(r.TrainLoss, w.TrainLoss) || !near(r.Val["loss"], w.Val["loss"]) {
			t.Errorf("two batches of a stream: %+v, a batch of two: %+v", r, w)
		}
	}
}

func near(a, b float64) bool { return max(a/b, b/a) < 1+1e-5 }

// A run that was interrupted goes on with another number of ranks to the same bits.
func TestRanksResume(t *testing.T) {
	cfg := small("char")
	cfg.Epochs, cfg.Accumulate = 2, 4
	read := func() *Data { return both(docs(story), docs(story[:500])) }
	want, _ := trainedOn(t, read(), cfg, nil)
	dir := t.TempDir()
	halt := errors.New("halt")
	half := train.Run{Dir: dir, Hooks: train.Hooks{OnStep: func(s train.Step) error {
		if s.Step == 15 {
			return errors.Join(halt, train.ErrPause)
		}
		return nil
	}}}
	if _, _, err := Train(t.Context(), read(), cfg, &half); !errors.Is(err, train.ErrPause) {
		t.Fatal(err)
	}
	cfg.Accumulate = 2
	got, r := onRanks(t, 2, read, cfg, train.Run{Dir: dir, Resume: true})
	if r.ResumedAt != 15 || !slices.Equal(weights(got), weights(want)) {
		t.Errorf("resumed at %d on 2 ranks: other weights", r.ResumedAt)
	}
}

// Scores are shared by ranks, and are those of one process.
func TestRanksScore(t *testing.T) {
	for _, unit := range units {
		m := trained(t, small(unit), story)
		d := learnt(docs(story, story[:333], "The cat", story[70:900], "A bird.\n"))
		want, err := m.Evaluate(t.Context(), d, task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		tally, err := m.Tally(t.Context(), d, task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, ranks := range []int{2, 3, 7} {
			var all sync.WaitGroup
			for rank, w := range traintest.Worlds(ranks) {
				all.Go(func() {
					ctx := train.WithWorld(t.Context(), w)
					got, err := m.Evaluate(ctx, d, task.All, nil)
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s: rank %d of %d: %+v (%v), want %+v", unit, rank, ranks, got, err, want)
					}
					rows, err := m.Tally(ctx, d, task.All, nil)
					if err != nil || !reflect.DeepEqual(rows.Rows, tally.Rows) {
						t.Errorf("%s: rank %d of %d: another tally (%v)", unit, rank, ranks, err)
					}
				})
			}
			all.Wait()
		}
	}
}

// More batches to a step than the text has tokens for are refused, in terms of what the
// user sets.
func TestTooManyStreams(t *testing.T) {
	cfg := small("char")
	cfg.Accumulate = 100
	var bad *data.InputError
	if _, _, err := Train(t.Context(), learnt(docs(story[:150])), cfg, nil); !errors.As(err, &bad) {
		t.Error(err)
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/train"
)

const (
	coresTexts  = 320 // of 40 words
	coresBatch  = 32
	coresEpochs = 4 // the first is not counted
)

// A side is one way to train on two cores, with the samples a second of its turns.
type side struct {
	name  string
	line  []string
	speed []float64
}

// cores is the pass of that name: an LSTM classifier by the command, on texts of random words.
func (o *options) cores(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "carousel-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "carousel")
	if _, err := rig.Run(ctx, "go", "build", "-o", program, "./cmd/carousel"); err != nil {
		return err
	}
	for name, n := range map[string]int{"train.txt": coresTexts, "valid.txt": coresBatch} {
		if err := os.WriteFile(filepath.Join(dir, name), texts(n), 0o644); err != nil {
			return err
		}
	}
	run := filepath.Join(dir, "run")
	train := []string{"train", "classify", "--data", filepath.Join(dir, "train.txt"), "--valid", filepath.Join(dir, "valid.txt"), "--format", "label-first",
		"--tokens", "space", "--linear=false", "--ema", "0", "--patience", "-1", "--layers", "2", "--hidden", "256", "--embedding", "256",
		"--epochs", strconv.Itoa(coresEpochs), "--seed", "1", "--out", run}
	batch := func(n int) []string { return append(slices.Clip(train), "--batch", strconv.Itoa(n)) }
	sides := []*side{
		{name: "2 ranks of 1 thread", line: append([]string{"launch", "-n", "2", "--threads", "1", "--"}, batch(coresBatch)...)},
		{name: "1 process of 2 threads, accumulate 2 (the same bits)", line: append(batch(coresBatch), "--accumulate", "2", "--threads", "2")},
		{name: "1 process of 2 threads, batches of twice the size", line: append(batch(2*coresBatch), "--threads", "2")},
	}
	var weights [2][sha256.Size]byte
	for round := range o.rounds {
		for i := range sides {
			k := (i + round) % len(sides)
			s := sides[k]
			if err := os.RemoveAll(run); err != nil {
				return err
			}
			if _, err := rig.Run(ctx, program, s.line...); err != nil {
				return err
			}
			speed, err := samplesPerSecond(run)
			if err != nil {
				return err
			}
			s.speed = append(s.speed, speed)
			if k < len(weights) {
				b, err := os.ReadFile(filepath.Join(run, "model.safetensors"))
				if err != nil {
					return err
				}
				weights[k] = sha256.Sum256(b)
			}
			fmt.Fprintf(os.Stderr, "round %d, %s: %.0f samples/s\n", round+1, s.name, speed)
		}
		if weights[0] != weights[1] {
			return errors.New("two ranks and one process that accumulates have trained different weights")
		}
	}
	fmt.Fprintf(out, "\nSamples a second on %d cores, median of %d rounds; the bar for two ranks is 0.95\n\n| | samples/s | two ranks beside it | least and greatest |\n|---|---:|---:|---:|\n", runtime.NumCPU(), o.rounds)
	for _, s := range sides {
		var ratios []float64
		for i, v := range s.speed {
			ratios = append(ratios, sides[0].speed[i]/v)
		}
		fmt.Fprintf(out, "| %s | %.0f | %.3f | %.3f, %.3f |\n", s.name, median(s.speed), median(ratios), slices.Min(ratios), slices.Max(ratios))
	}
	return nil
}

// texts are lines of a label and 40 words.
func texts(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var b bytes.Buffer
	for i := range n {
		fmt.Fprint(&b, i%2)
		for range 40 {
			fmt.Fprintf(&b, " w%d", r.IntN(5000))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// samplesPerSecond reads the epochs after the first from a run's history.
func samplesPerSecond(run string) (float64, error) {
	text, err := os.ReadFile(filepath.Join(run, "metrics.jsonl"))
	if err != nil {
		return 0, err
	}
	var seconds []float64
	for line := range bytes.Lines(text) {
		var r train.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return 0, err
		}
		seconds = append(seconds, r.Seconds)
	}
	if len(seconds) != coresEpochs {
		return 0, fmt.Errorf("%d epochs were recorded, not %d", len(seconds), coresEpochs)
	}
	return coresTexts * (coresEpochs - 1) / (seconds[coresEpochs-1] - seconds[0]), nil
}

package tune_test

import (
	"context"
	"fmt"
	"log"

	"github.com/carousel-ml/carousel/tune"
)

// Any function of parameters can be optimized: Run asks for trials, and tells their results.
func ExampleStudy_Run() {
	space, err := tune.ParseSpace("space", `
x: {low: -10, high: 10, default: 5}
y: {low: 0, high: 20, type: int, default: 3}
`)
	if err != nil {
		log.Fatal(err)
	}
	study, err := tune.New(space, tune.Options{Trials: 60, Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	err = study.Run(context.Background(), func(ctx context.Context, t *tune.Trial) ([]float64, error) {
		x, y := t.Float("x"), float64(t.Int("y"))
		return []float64{(x-2)*(x-2) + (y-11)*(y-11)/10}, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	list, err := study.Trials(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	best := study.Best(list)[0]
	fmt.Println(len(list), "trials; the first one, of the defaults, has", *list[0].Value)
	fmt.Println("the best one is better:", *best.Value < *list[0].Value)
	// Output:
	// 60 trials; the first one, of the defaults, has 15.4
	// the best one is better: true
}

// Ask and Tell leave the loop to the program. Report tells results part way, so that a pruner can end a trial
// that falls behind; Enqueue lets values be tried next.
func ExampleStudy_Ask() {
	ctx := context.Background()
	space := &tune.Space{Params: []*tune.Param{
		{Name: "lr", Type: tune.Float, Low: 1e-4, High: 1, Log: true, Default: 0.01},
		{Name: "cell", Type: tune.Choice, Choices: []string{"lstm", "gru"}, Default: "lstm"},
	}}
	study, err := tune.New(space, tune.Options{Trials: 20, Seed: 1, Pruner: "median", Resource: 5})
	if err != nil {
		log.Fatal(err)
	}
	if err := study.Enqueue(ctx, tune.Values{"lr": 0.1}); err != nil { // cell has its default
		log.Fatal(err)
	}
	for {
		trial, err := study.Ask(ctx)
		if err == tune.ErrDone {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		loss := 0.0
		for epoch := 1; epoch <= 5; epoch++ {
			loss = trial.Float("lr") + 1/float64(epoch)
			stop, err := trial.Report(ctx, epoch, 100*epoch, loss)
			if err != nil {
				log.Fatal(err)
			}
			if stop {
				break
			}
		}
		if err := study.Tell(ctx, trial, loss); err != nil {
			log.Fatal(err)
		}
	}
	list, err := study.Trials(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(list[0].Origin, list[0].Values["lr"], list[0].Values["cell"], *list[0].Value)
	fmt.Println(list[1].Origin, list[1].Values["lr"], list[1].Values["cell"], *list[1].Value)
	// Output:
	// enqueued 0.1 lstm 0.30000000000000004
	// default 0.01 lstm 0.21000000000000002
}

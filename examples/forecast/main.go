// Forecast trains a forecasting model on a table, prints its evaluation, saves it
// and forecasts the rows after the table.
//
//	go run ./examples/forecast sales.csv date units
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: forecast TABLE TIME-COLUMN TARGET-COLUMN")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1], os.Args[2], os.Args[3])
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, table, time, target string) error {
	cfg := forecast.Defaults()
	cfg.Time, cfg.Target = time, []string{target}
	d, err := forecast.Read(ctx, &forecast.Files{Data: table}, cfg)
	if err != nil {
		return err // names the file, the line and the column
	}
	m, _, err := forecast.Train(ctx, d, cfg, nil)
	if err != nil {
		return err
	}
	score, err := m.Evaluate(ctx, d, task.Test, nil)
	if err != nil {
		return err
	}
	fmt.Printf("mean absolute error %.4g, seasonal naive %.4g\n", score.Metrics.MAE, score.Baselines["seasonal_naive"].MAE)
	if err := m.Save("model"); err != nil { // carousel.Open and the command read it
		return err
	}
	next, err := m.Forecast(ctx, d.Panel, nil)
	if err != nil {
		return err
	}
	return next.Write(os.Stdout)
}

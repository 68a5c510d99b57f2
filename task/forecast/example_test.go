package forecast_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
)

// A shop's hourly sales: busy days, quiet nights, and twice the custom when
// there is a promotion, which is planned and so known ahead.
func Example() {
	panel := &data.Panel{Columns: []string{"sales", "promotion"}, Freq: data.Every(time.Hour), HasTime: true}
	shop := &data.Series{Values: make([][]float64, 2)}
	open := time.Date(2024, 3, 4, 0, 0, 0, 0, time.UTC)
	for h := range 24 * 60 {
		promotion := 0.0
		if day := h / 24; day%5 == 1 || day%7 == 3 {
			promotion = 1
		}
		sales := (60 - 50*math.Cos(2*math.Pi*float64(h)/24)) * (1 + promotion)
		shop.Time = append(shop.Time, open.Add(time.Duration(h)*time.Hour))
		shop.Line = append(shop.Line, h+2)
		shop.Values[0] = append(shop.Values[0], sales)
		shop.Values[1] = append(shop.Values[1], promotion)
	}
	panel.Series = []*data.Series{shop}

	cfg := forecast.Defaults()
	cfg.Target, cfg.Future = []string{"sales"}, forecast.Future{"promotion"}
	cfg.Hidden, cfg.Layers, cfg.Epochs = 16, 1, 3
	ctx := context.Background()
	table, err := forecast.NewData(panel, cfg)
	if err != nil {
		log.Fatal(err)
	}
	model, _, err := forecast.Train(ctx, table, cfg, nil)
	if err != nil {
		log.Fatal(err)
	}
	score, err := model.Evaluate(ctx, table, task.Test, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("windows:", score.Windows)
	fmt.Println("less than a fifth of seasonal naive's error:", score.Metrics.MAE < score.Baselines["seasonal_naive"].MAE/5)
	// Output:
	// windows: 265
	// less than a fifth of seasonal naive's error: true
}

// Package carousel trains and runs recurrent sequence models: the LSTM and its
// family, in Go without cgo. It is named after the LSTM's own idea, the constant
// error carousel.
//
// This package opens trained models of any task. The work is done by the
// packages below it:
//
//   - [github.com/carousel-ml/carousel/task/forecast] trains and applies models of
//     time series: a Config, Read, Train, Open, Forecast, Evaluate, Backtest.
//   - [github.com/carousel-ml/carousel/data] reads the tables they learn from.
//   - [github.com/carousel-ml/carousel/report] draws plots and writes pages.
//   - [github.com/carousel-ml/carousel/train] is the training loop: epochs,
//     checkpoints, exact resume, early stopping.
//   - [github.com/carousel-ml/carousel/nn], [github.com/carousel-ml/carousel/optim]
//     and [github.com/carousel-ml/carousel/tensor] are layers, optimizers and the
//     tape, for models of one's own.
//   - [github.com/carousel-ml/carousel/model] keeps models on disk, under
//     PyTorch's parameter names.
//
// The command in cmd/carousel does all of it without writing Go.
package carousel

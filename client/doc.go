// Package client calls services of Sluice from Go: through the edge, or past it by the direct channel.
//
//	c, err := client.New(client.Config{
//		Control: "http://127.0.0.1:8081", Project: "…", Service: "…", Token: "…", DirectKey: "…",
//	})
//	defer c.Close()
//	out, err := c.Infer(ctx, "digits", &client.InferRequest{Inputs: []client.Tensor{client.Float32s("x", []int64{1, 784}, pixels)}})
//
// Through says which way; every other line stays the same. Past the edge a Client looks the instances up,
// again every Refresh and when one fails, chooses a version by weight and of two of its instances the one with
// less to do, leaves those that drain, and repeats what certainly did not run, or may run twice.
//
// A Client is safe for concurrent use. New starts nothing; a look-up that runs beside calls ends with Close.
package client

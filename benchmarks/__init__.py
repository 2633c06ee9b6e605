"""Side by side: stock Multi Model Server, stock with sagemaker-inference, and ours."""

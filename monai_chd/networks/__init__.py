"""The CNN-LSTM over the frames of a case, and the frame encoders it takes."""

"""The paper's figures and tables, drawn from runs and studies of ours, with the values that it prints beside them."""

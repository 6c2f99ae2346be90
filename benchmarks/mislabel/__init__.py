"""Which samples carry a wrong label: this package against cleanlab, AUM, EL2N, mean loss and captum's self-influence."""

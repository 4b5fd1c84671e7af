"""The conjecture test: was what compression took forgotten, or only displaced?"""

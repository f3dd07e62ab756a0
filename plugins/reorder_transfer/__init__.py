"""`reorder transfer`: does an order learned for one task, model or data set help another?"""
